// SPDX-License-Identifier: Apache-2.0
// The trainer's search for this instruction set: 64 bytes of the corpus at a time.
#if defined(__x86_64__)
#include "text/bpe_train.h"

#include <immintrin.h>

size_t soma__bpe_find_avx2(const uint16_t *s, size_t i, size_t n, uint16_t left, uint16_t right) {
    __m256i l = _mm256_set1_epi16((short)left), r = _mm256_set1_epi16((short)right);
    for (; i + 33 <= n; i += 32) {
        __m256i a = _mm256_cmpeq_epi16(_mm256_loadu_si256((const __m256i *)(s + i)), l);
        __m256i b = _mm256_cmpeq_epi16(_mm256_loadu_si256((const __m256i *)(s + i + 1)), r);
        __m256i c = _mm256_cmpeq_epi16(_mm256_loadu_si256((const __m256i *)(s + i + 16)), l);
        __m256i d = _mm256_cmpeq_epi16(_mm256_loadu_si256((const __m256i *)(s + i + 17)), r);
        __m256i first = _mm256_and_si256(a, b), hit = _mm256_or_si256(first, _mm256_and_si256(c, d));
        if (_mm256_testz_si256(hit, hit)) continue;
        unsigned in_first = (unsigned)_mm256_movemask_epi8(first);
        if (in_first) return i + (size_t)__builtin_ctz(in_first) / 2;
        return i + 16 + (size_t)__builtin_ctz((unsigned)_mm256_movemask_epi8(hit)) / 2;
    }
    while (i + 1 < n && (s[i] != left || s[i + 1] != right)) i++;
    return i;
}
#endif

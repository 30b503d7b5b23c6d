// SPDX-License-Identifier: Apache-2.0
// Wilson 1927, "Probable inference, the law of succession, and statistical inference". Unlike the usual plus-minus it stays inside 0 to 1
// and says something at 0 of n and n of n, which is where good and untrained policies are.
#include "eval/rate.h"

#include <math.h>

#define Z95 1.959963984540054 // the normal distribution's 97.5 % quantile

soma_rate soma__rate(int64_t hits, int64_t n) {
    SOMA_CHECK(hits >= 0 && hits <= n, "a rate has between 0 and n hits");
    if (!n) return (soma_rate){0, 0, 1, 0};
    double p = (double)hits / (double)n, z2 = Z95 * Z95 / (double)n;
    double centre = (p + z2 / 2) / (1 + z2), half = sqrt(p * (1 - p) * z2 + z2 * z2 / 4) / (1 + z2);
    // at the ends the closed form gives exactly 0 and 1, but rounding does not
    return (soma_rate){p, hits ? fmax(centre - half, 0) : 0, hits < n ? fmin(centre + half, 1) : 1, n};
}

json_t *soma__rate_json(soma_rate r) {
    return json_pack("{s:f, s:f, s:f, s:I}", "rate", r.rate, "low", r.low, "high", r.high, "n", (json_int_t)r.n);
}

soma_status soma__rate_read(soma_rate *rate, const json_t *object, const char *key, const char *where, soma_error *err) {
    const json_t *o;
    SOMA_TRY(soma__json_get(&o, object, key, where, err));
    SOMA_TRY(soma__json_real(&rate->rate, o, "rate", where, err));
    SOMA_TRY(soma__json_real(&rate->low, o, "low", where, err));
    SOMA_TRY(soma__json_real(&rate->high, o, "high", where, err));
    return soma__json_int(&rate->n, o, "n", 0, INT64_MAX, where, err);
}

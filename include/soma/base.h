// SPDX-License-Identifier: Apache-2.0
// What every other header of soma stands on: status codes, the error record, the contract check, the log callback, dtypes.
//
// Three kinds of failure, three answers:
//   the world fails (files, network, checkpoints, clients): a function returns soma_status and fills a soma_error;
//   a model's author fails (shapes, missing weights): the graph keeps its first error and planning returns it;
//   the caller breaks the contract: SOMA_CHECK, always on, through a replaceable handler.
#ifndef SOMA_BASE_H
#define SOMA_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SOMA_VERSION "0.1.0"

// code, the word printed in front of the message
#define SOMA_STATUS_LIST(X)                                                               \
    X(SOMA_OK, "ok")                                                                      \
    X(SOMA_BAD_INPUT, "bad input") /* a file, a request or an option is wrong */          \
    X(SOMA_NOT_FOUND, "not found") /* a file, a feature, a tensor is absent */            \
    X(SOMA_IO, "input/output")     /* the system refused to read, write or connect */     \
    X(SOMA_NO_MEMORY, "out of memory")                                                    \
    X(SOMA_UNSUPPORTED, "unsupported") /* well formed, but this build cannot do it */     \
    X(SOMA_BAD_GRAPH, "bad graph")     /* a model's shapes, weights or dtypes disagree */ \
    X(SOMA_BUSY, "busy")                                                                  \
    X(SOMA_CANCELLED, "cancelled")

#define SOMA_STATUS_ENUM(code, word) code,
typedef enum soma_status { SOMA_STATUS_LIST(SOMA_STATUS_ENUM) SOMA_STATUS_COUNT } soma_status;
#undef SOMA_STATUS_ENUM

// The last parameter of whatever can fail for a reason outside the program. NULL is allowed where only the code matters.
typedef struct soma_error {
    soma_status code;
    char text[1000]; // one sentence: the file, the tensor, the shape wanted, the shape found, what to do
} soma_error;

// The word for a code; never NULL.
const char *soma_status_word(soma_status code);

// "0.1.0"; the library's own, to be compared with SOMA_VERSION of the header.
const char *soma_version(void);

// ---- the caller's contract

// Called when SOMA_CHECK fails; must not return. The default prints to standard error and aborts.
typedef void soma_check_handler(const char *file, int line, const char *sentence);
void soma_check_set_handler(soma_check_handler *handler); // NULL restores the default
void soma_check_failed(const char *file, int line, const char *sentence);

// Always on; `cond` has no side effects.
#define SOMA_CHECK(cond, sentence)                                    \
    do {                                                              \
        if (!(cond)) soma_check_failed(__FILE__, __LINE__, sentence); \
    } while (0)

// ---- the log

typedef enum soma_log_level { SOMA_LOG_DEBUG, SOMA_LOG_INFO, SOMA_LOG_WARN, SOMA_LOG_ERROR } soma_log_level;
// May be called from any thread. `text` has no newline and is borrowed for the call.
typedef void soma_log_fn(void *user, soma_log_level level, const char *text);
void soma_log_set(soma_log_fn *fn, void *user); // NULL: silence, which is the library's default

// ---- number formats

// name, bytes per value, safetensors' name. f16, f64, i64 and bool appear at file edges only.
#define SOMA_DTYPE_LIST(X)  \
    X(SOMA_F32, 4, "F32")   \
    X(SOMA_BF16, 2, "BF16") \
    X(SOMA_I32, 4, "I32")   \
    X(SOMA_U8, 1, "U8")     \
    X(SOMA_F16, 2, "F16")   \
    X(SOMA_F64, 8, "F64")   \
    X(SOMA_I64, 8, "I64")   \
    X(SOMA_BOOL, 1, "BOOL")

#define SOMA_DTYPE_ENUM(name, size, word) name,
typedef enum soma_dtype { SOMA_DTYPE_LIST(SOMA_DTYPE_ENUM) SOMA_DTYPE_COUNT } soma_dtype;
#undef SOMA_DTYPE_ENUM

size_t soma_dtype_size(soma_dtype dtype);
const char *soma_dtype_name(soma_dtype dtype); // "F32"

#define SOMA_MAX_DIMS 6

#ifdef __cplusplus
}
#endif
#endif

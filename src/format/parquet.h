// SPDX-License-Identifier: Apache-2.0
// Parquet files as tables of numbers and texts, through DuckDB, none of whose types leave this file. Nothing is fetched, nothing is
// installed, file names are taken literally (no patterns, no addresses).
#ifndef SOMA_FORMAT_PARQUET_H
#define SOMA_FORMAT_PARQUET_H

#include "base/base.h"

typedef struct soma_parquet soma_parquet; // one thread's connection

// `share` (NULL allowed): a connection whose in-memory database is used together; it outlives this one.
soma_status soma__parquet_open(soma_parquet **pq, const soma_parquet *share, soma_error *err);
void soma__parquet_close(soma_parquet *pq); // NULL allowed

// ---- reading

typedef enum soma_column_kind {
    SOMA_COLUMN_NUMBER, // integers, reals and booleans; integers beyond 2^53 are rounded
    SOMA_COLUMN_TEXT,   // strings and blobs; of a struct its field `bytes` (pictures)
    SOMA_COLUMN_OTHER,  // present, not read
} soma_column_kind;

typedef struct soma_text {
    const char *data; // zero-terminated behind `len` bytes; NULL: null
    size_t len;
} soma_text;

typedef struct soma_column {
    const char *name;
    soma_column_kind kind;
    bool list;              // rows hold lists (of lists): flattened, row by row
    const size_t *starts;   // [n_rows + 1]; row r has values starts[r] .. starts[r+1]-1
    const double *numbers;  // of kind NUMBER; null is NaN
    const soma_text *texts; // of kind TEXT
} soma_column;

typedef struct soma_table {
    int64_t n_rows;
    int n_columns;
    const soma_column *columns;
} soma_table;

typedef struct soma_parquet_query {
    const char *path;
    const char *const *columns; // NULL: all
    int n_columns;
    const char *where; // column that must equal `equals`; NULL: all rows
    int64_t equals;
    size_t max_values;     // more values of a column, or rows, are refused; 0: the most that one read may hold, 2^28
    int64_t offset, limit; // of the rows that are left, in the file's order; limit -1: no limit
} soma_parquet_query;

// A column that the file lacks is SOMA_NOT_FOUND with a sentence that lists the columns it has.
soma_status soma__parquet_read(soma_table **table, soma_parquet *pq, const soma_parquet_query *query, soma_error *err);
void soma__table_free(soma_table *table);                                         // NULL allowed
const soma_column *soma__table_column(const soma_table *table, const char *name); // NULL when absent

// ---- writing

typedef enum soma_parquet_type {
    SOMA_PARQUET_I64,
    SOMA_PARQUET_F32,
    SOMA_PARQUET_F64,
    SOMA_PARQUET_BOOL,
    SOMA_PARQUET_TEXT
} soma_parquet_type;

// A column of rows of one shape: scalars (n_dims 0) or lists (of lists). Borrowed for the call.
typedef struct soma_parquet_field {
    const char *name;
    soma_parquet_type type;
    int n_dims;
    int64_t shape[3];
    const void *values; // int64_t, float, double, bool or const char *, row after row
} soma_parquet_field;

// Writes all or nothing. `key`, `value` (NULL allowed): one entry of the file's key-value metadata.
soma_status soma__parquet_write(soma_parquet *pq, const char *path, const soma_parquet_field *fields, int n_fields, int64_t n_rows,
                                const char *key, const char *value, soma_error *err);

// ---- SQL over rows that are not in a file

// Appends rows to a table of this connection, which the first call makes.
soma_status soma__parquet_append(soma_parquet *pq, const char *name, const soma_parquet_field *fields, int n_fields, int64_t n_rows,
                                 soma_error *err);
// The rows of one SELECT over those tables; with `as_text` each value as DuckDB writes it. The error is DuckDB's, with its place in the
// text.
soma_status soma__parquet_select(soma_table **table, soma_parquet *pq, const char *question, bool as_text, soma_error *err);

#endif

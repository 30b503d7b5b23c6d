// SPDX-License-Identifier: Apache-2.0
// Any bytes as a parquet file: all its columns are read, or it is refused with a sentence that names it.
#include "format/parquet.h"
#include "fuzz_file.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static soma_parquet *pq;
    const char *path = fuzz_file("input.parquet", data, size);
    if (!pq && soma__parquet_open(&pq, NULL, NULL)) abort();
    const soma_parquet_query q = {.path = path, .limit = -1, .max_values = 100000};
    soma_table *t;
    soma_error err = {0};
    if (soma__parquet_read(&t, pq, &q, &err)) {
        if (t || !strstr(err.text, path)) abort();
        return 0;
    }
    for (int c = 0; c < t->n_columns; c++) {
        const soma_column *column = &t->columns[c];
        for (int64_t r = 0; r < t->n_rows; r++) {
            if (column->starts[r] > column->starts[r + 1]) abort();
            for (size_t i = column->starts[r]; i < column->starts[r + 1]; i++)
                if (column->kind == SOMA_COLUMN_TEXT && column->texts[i].data && column->texts[i].data[column->texts[i].len]) abort();
        }
    }
    soma__table_free(t);
    return 0;
}

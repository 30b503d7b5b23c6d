// SPDX-License-Identifier: Apache-2.0
// DuckDB behind four verbs: open, read, write, close. Results are read chunk by chunk from its vectors (its value-by-value calls are
// deprecated and give NULL for lists). A file's columns are flattened into plain arrays at once, so that nothing of DuckDB outlives a call.
#include "format/parquet.h"
#include "base/arena.h"
#include "base/file.h"
#include "base/str.h"

#include <duckdb.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

enum { MAX_DEPTH = 8 };
// What one read may hold: 2 GiB of numbers or texts. A file of a few kilobytes can say that it has a billion equal rows.
#define MAX_VALUES ((size_t)1 << 28)
#define MAX_TEXT ((size_t)1 << 31)

struct soma_parquet {
    duckdb_database database;
    duckdb_connection connection;
    bool owner;
};

// ---- connection

static bool configure(duckdb_config config) {
    static const char *const settings[][2] = {
        {"autoinstall_known_extensions", "false"},
        {"autoload_known_extensions", "false"},
        {"threads", "1"}, // parallelism is ours: one connection per thread
    };
    for (size_t i = 0; i < SOMA_COUNT(settings); i++)
        if (duckdb_set_config(config, settings[i][0], settings[i][1]) != DuckDBSuccess) return false;
    return true;
}

static soma_status open_database(soma_parquet *pq, soma_error *err) {
    duckdb_config config = NULL;
    char *text = NULL;
    bool ok = duckdb_create_config(&config) == DuckDBSuccess && configure(config) &&
              duckdb_open_ext(NULL, &pq->database, config, &text) == DuckDBSuccess;
    duckdb_destroy_config(&config);
    soma_status status = ok ? SOMA_OK : soma__fail(err, SOMA_IO, "DuckDB does not start: %s", text ? text : "its options are refused");
    duckdb_free(text);
    return status;
}

soma_status soma__parquet_open(soma_parquet **out, const soma_parquet *share, soma_error *err) {
    soma_parquet *pq = *out = soma__calloc(1, sizeof *pq);
    if (!pq) return soma__no_memory(err, "a DuckDB connection");
    pq->owner = !share;
    if (share) pq->database = share->database;
    soma_status status = share ? SOMA_OK : open_database(pq, err);
    if (status == SOMA_OK && duckdb_connect(pq->database, &pq->connection) != DuckDBSuccess)
        status = soma__fail(err, SOMA_IO, "DuckDB refuses a connection");
    if (status == SOMA_OK) return SOMA_OK;
    soma__parquet_close(pq);
    *out = NULL;
    return status;
}

void soma__parquet_close(soma_parquet *pq) {
    if (!pq) return;
    if (pq->connection) duckdb_disconnect(&pq->connection);
    if (pq->owner && pq->database) duckdb_close(&pq->database);
    soma__free(pq);
}

// ---- text of queries

static void add_identifier(soma_str *sql, const char *name) {
    soma__str_add(sql, "\"");
    for (; *name; name++) soma__str_add_bytes(sql, *name == '"' ? "\"\"" : name, *name == '"' ? 2 : 1);
    soma__str_add(sql, "\"");
}

static void add_literal(soma_str *sql, const char *text) {
    soma__str_add(sql, "'");
    for (; *text; text++) soma__str_add_bytes(sql, *text == '\'' ? "''" : text, *text == '\'' ? 2 : 1);
    soma__str_add(sql, "'");
}

// A path cannot be taken for an address or for a home folder; where DuckDB looks for patterns, their characters are quoted.
static void add_path(soma_str *sql, const char *path, bool pattern) {
    soma_str plain = {0};
    if (path[0] != '/') soma__str_add(&plain, "./");
    for (const char *p = path; *p; p++) {
        if (pattern && strchr("*?[", *p)) {
            soma__str_printf(&plain, "[%c]", *p);
        } else {
            soma__str_add_bytes(&plain, p, 1);
        }
    }
    if (plain.failed) sql->failed = true;
    add_literal(sql, plain.text ? plain.text : "");
    soma__str_free(&plain);
}

// DuckDB's first line, without its advice.
static soma_status fail_duckdb(soma_error *err, const char *path, const char *text) {
    int len = text ? (int)strcspn(text, "\n") : 0;
    return soma__fail(err, SOMA_BAD_INPUT, "%s: cannot be read as parquet: %.*s", path, SOMA_MIN(len, 400), text ? text : "");
}

// ---- reading

typedef struct level {
    duckdb_type type;
    idx_t child; // ARRAY: values per entry; STRUCT: which field
} level;

typedef struct reading { // one column while it is read
    soma_column c;
    level levels[MAX_DEPTH];
    size_t n_values, room, starts_room;
    double *numbers;
    soma_text *texts;
    size_t *starts;
} reading;

typedef struct table {
    soma_table t;
    soma_arena arena;
    reading *readings;
    soma_column *columns;
    size_t text;    // bytes of all texts
    size_t most;    // values of a column
    bool too_large; // a limit was reached
} table;

static bool is_number(duckdb_type type) {
    return type == DUCKDB_TYPE_BOOLEAN || type == DUCKDB_TYPE_TINYINT || type == DUCKDB_TYPE_SMALLINT || type == DUCKDB_TYPE_INTEGER ||
           type == DUCKDB_TYPE_BIGINT || type == DUCKDB_TYPE_UTINYINT || type == DUCKDB_TYPE_USMALLINT || type == DUCKDB_TYPE_UINTEGER ||
           type == DUCKDB_TYPE_UBIGINT || type == DUCKDB_TYPE_FLOAT || type == DUCKDB_TYPE_DOUBLE;
}

// The field `bytes` of a struct, or its field count when it has none.
static idx_t find_bytes(duckdb_logical_type type) {
    idx_t n = duckdb_struct_type_child_count(type), found = n;
    for (idx_t i = 0; i < n; i++) {
        char *name = duckdb_struct_type_child_name(type, i);
        if (name && !strcmp(name, "bytes")) found = i;
        duckdb_free(name);
    }
    return found;
}

// Follows a type down to its innermost values; takes `type`.
static void plan_column(reading *r, duckdb_logical_type type) {
    r->c.kind = SOMA_COLUMN_OTHER;
    for (int depth = 0; depth < MAX_DEPTH; depth++) {
        level *l = &r->levels[depth];
        duckdb_logical_type inner = NULL;
        l->type = duckdb_get_type_id(type);
        if (is_number(l->type)) r->c.kind = SOMA_COLUMN_NUMBER;
        if (l->type == DUCKDB_TYPE_VARCHAR || l->type == DUCKDB_TYPE_BLOB) r->c.kind = SOMA_COLUMN_TEXT;
        if (l->type == DUCKDB_TYPE_LIST) inner = duckdb_list_type_child_type(type);
        if (l->type == DUCKDB_TYPE_ARRAY) {
            inner = duckdb_array_type_child_type(type);
            l->child = duckdb_array_type_array_size(type);
        }
        if (l->type == DUCKDB_TYPE_STRUCT && (l->child = find_bytes(type)) < duckdb_struct_type_child_count(type))
            inner = duckdb_struct_type_child_type(type, l->child);
        if (l->type == DUCKDB_TYPE_LIST || l->type == DUCKDB_TYPE_ARRAY) r->c.list = true;
        duckdb_destroy_logical_type(&type);
        if (!inner) return;
        type = inner;
    }
    duckdb_destroy_logical_type(&type);
}

static double number_at(duckdb_type type, const void *data, idx_t i) {
    switch (type) {
    case DUCKDB_TYPE_BOOLEAN: return ((const bool *)data)[i];
    case DUCKDB_TYPE_TINYINT: return ((const int8_t *)data)[i];
    case DUCKDB_TYPE_SMALLINT: return ((const int16_t *)data)[i];
    case DUCKDB_TYPE_INTEGER: return ((const int32_t *)data)[i];
    case DUCKDB_TYPE_BIGINT: return (double)((const int64_t *)data)[i];
    case DUCKDB_TYPE_UTINYINT: return ((const uint8_t *)data)[i];
    case DUCKDB_TYPE_USMALLINT: return ((const uint16_t *)data)[i];
    case DUCKDB_TYPE_UINTEGER: return ((const uint32_t *)data)[i];
    case DUCKDB_TYPE_UBIGINT: return (double)((const uint64_t *)data)[i];
    case DUCKDB_TYPE_FLOAT: return ((const float *)data)[i];
    default: return ((const double *)data)[i];
    }
}

static bool add_text(table *t, reading *r, duckdb_string_t *s) {
    uint32_t len = duckdb_string_t_length(*s);
    if ((t->text += len) > MAX_TEXT) {
        t->too_large = true;
        return false;
    }
    char *copy = soma__arena_alloc(&t->arena, (size_t)len + 1);
    if (!copy) return false;
    memcpy(copy, duckdb_string_t_data(s), len);
    r->texts[r->n_values++] = (soma_text){copy, len};
    return true;
}

// Appends entries begin .. begin+count-1 of a vector, flattened; false when memory is out.
static bool collect(table *t, reading *r, duckdb_vector vector, int depth, idx_t begin, idx_t count) {
    const level *l = &r->levels[depth];
    uint64_t *validity = duckdb_vector_get_validity(vector);
    void *data = duckdb_vector_get_data(vector);
    if (l->type == DUCKDB_TYPE_STRUCT) return collect(t, r, duckdb_struct_vector_get_child(vector, l->child), depth + 1, begin, count);
    if (l->type == DUCKDB_TYPE_ARRAY)
        return collect(t, r, duckdb_array_vector_get_child(vector), depth + 1, begin * l->child, count * l->child);
    if (l->type == DUCKDB_TYPE_LIST) {
        const duckdb_list_entry *entries = data;
        duckdb_vector child = duckdb_list_vector_get_child(vector);
        for (idx_t i = begin; i < begin + count; i++)
            if ((!validity || duckdb_validity_row_is_valid(validity, i)) &&
                !collect(t, r, child, depth + 1, entries[i].offset, entries[i].length))
                return false;
        return true;
    }
    if (count > t->most || r->n_values + count > t->most) {
        t->too_large = true;
        return false;
    }
    bool number = r->c.kind == SOMA_COLUMN_NUMBER;
    void **items = number ? (void **)&r->numbers : (void **)&r->texts;
    if (!soma__grow(items, &r->room, r->n_values + count, number ? sizeof *r->numbers : sizeof *r->texts)) return false;
    for (idx_t i = begin; i < begin + count; i++) {
        bool valid = !validity || duckdb_validity_row_is_valid(validity, i);
        if (number) {
            r->numbers[r->n_values++] = valid ? number_at(l->type, data, i) : NAN;
        } else if (!valid) {
            r->texts[r->n_values++] = (soma_text){0};
        } else if (!add_text(t, r, (duckdb_string_t *)data + i)) {
            return false;
        }
    }
    return true;
}

static bool collect_chunk(table *t, duckdb_data_chunk chunk) {
    idx_t n = duckdb_data_chunk_get_size(chunk);
    if ((size_t)t->t.n_rows + n > t->most) {
        t->too_large = true;
        return false;
    }
    for (int c = 0; c < t->t.n_columns; c++) {
        reading *r = &t->readings[c];
        duckdb_vector vector = duckdb_data_chunk_get_vector(chunk, (idx_t)c);
        if (!soma__grow((void **)&r->starts, &r->starts_room, (size_t)t->t.n_rows + n + 1, sizeof *r->starts)) return false;
        for (idx_t row = 0; row < n; row++) {
            if (r->c.kind != SOMA_COLUMN_OTHER && !collect(t, r, vector, 0, row, 1)) return false;
            r->starts[(size_t)t->t.n_rows + row + 1] = r->n_values;
        }
    }
    t->t.n_rows += (int64_t)n;
    return true;
}

static bool start_table(table *t, duckdb_result *result) {
    int n = (int)duckdb_column_count(result);
    t->readings = soma__calloc((size_t)n, sizeof *t->readings);
    t->columns = soma__calloc((size_t)n, sizeof *t->columns);
    if (!t->readings || !t->columns) return false;
    t->t.n_columns = n;
    for (int c = 0; c < n; c++) {
        reading *r = &t->readings[c];
        r->c.name = soma__arena_strdup(&t->arena, duckdb_column_name(result, (idx_t)c));
        if (!r->c.name || !soma__grow((void **)&r->starts, &r->starts_room, 1, sizeof *r->starts)) return false;
        r->starts[0] = 0;
        plan_column(r, duckdb_column_logical_type(result, (idx_t)c));
    }
    return true;
}

static bool fill_table(table *t, duckdb_result *result) {
    if (!start_table(t, result)) return false;
    bool ok = true;
    for (duckdb_data_chunk chunk; ok && (chunk = duckdb_fetch_chunk(*result));) {
        ok = collect_chunk(t, chunk);
        duckdb_destroy_data_chunk(&chunk);
    }
    for (int c = 0; c < t->t.n_columns; c++) {
        reading *r = &t->readings[c];
        r->c.starts = r->starts;
        r->c.numbers = r->numbers;
        r->c.texts = r->texts;
        t->columns[c] = r->c;
    }
    t->t.columns = t->columns;
    return ok;
}

static void make_query(soma_str *sql, const soma_parquet_query *q) {
    soma__str_add(sql, "SELECT ");
    for (int i = 0; q->columns && i < q->n_columns; i++) {
        if (i) soma__str_add(sql, ", ");
        add_identifier(sql, q->columns[i]);
    }
    soma__str_add(sql, q->columns ? " FROM read_parquet(" : "* FROM read_parquet(");
    add_path(sql, q->path, true);
    soma__str_add(sql, ", hive_partitioning = false)");
    if (q->where) {
        soma__str_add(sql, " WHERE ");
        add_identifier(sql, q->where);
        soma__str_printf(sql, " = %lld", (long long)q->equals);
    }
    if (q->limit >= 0) soma__str_printf(sql, " LIMIT %lld", (long long)q->limit);
    if (q->offset > 0) soma__str_printf(sql, " OFFSET %lld", (long long)q->offset);
}

static soma_status fail_query(soma_error *err, const char *path, const char *text) {
    return path ? fail_duckdb(err, path, text) : soma__fail(err, SOMA_BAD_INPUT, "%.900s", text ? text : "the query is refused");
}

static soma_status take_rows(soma_table **out, duckdb_result *result, const char *path, size_t most, soma_error *err) {
    table *t = soma__calloc(1, sizeof *t);
    if (t) t->most = most ? SOMA_MIN(most, MAX_VALUES) : MAX_VALUES;
    *out = t ? &t->t : NULL;
    bool ok = t && fill_table(t, result);
    if (t && t->too_large)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: holds more than %zu values or %zu bytes of text, which is more than is wanted",
                          path ? path : "the answer", t->most, MAX_TEXT);
    if (!ok) return soma__no_memory(err, "the rows of a query");
    const char *text = duckdb_result_error(result); // what was wrong may come up after the first rows
    return text && *text ? fail_query(err, path, text) : SOMA_OK;
}

// Rows are taken as they are read, so that DuckDB never holds more than a chunk of them.
static soma_status stream(soma_table **out, soma_parquet *pq, const char *sql, const char *path, size_t most, soma_error *err) {
    duckdb_prepared_statement statement = NULL;
    duckdb_result result;
    soma_status status = SOMA_OK;
    if (duckdb_prepare(pq->connection, sql, &statement) != DuckDBSuccess) {
        status = fail_query(err, path, statement ? duckdb_prepare_error(statement) : NULL);
    } else {
        status = duckdb_execute_prepared_streaming(statement, &result) == DuckDBSuccess
                     ? take_rows(out, &result, path, most, err)
                     : fail_query(err, path, duckdb_result_error(&result));
        duckdb_destroy_result(&result);
    }
    duckdb_destroy_prepare(&statement);
    return status;
}

// The rows of a query as a table; takes `sql`. path NULL: the user's own SQL, not a file.
static soma_status fetch(soma_table **out, soma_parquet *pq, soma_str *sql, const char *path, size_t most, soma_error *err) {
    *out = NULL;
    soma_status status = sql->failed ? soma__no_memory(err, "a query") : stream(out, pq, sql->text, path, most, err);
    soma__str_free(sql);
    if (status == SOMA_OK) return SOMA_OK;
    soma__table_free(*out);
    *out = NULL;
    return status;
}

static soma_status run_query(soma_table **out, soma_parquet *pq, const soma_parquet_query *q, soma_error *err) {
    soma_str sql = {0};
    make_query(&sql, q);
    return fetch(out, pq, &sql, q->path, q->max_values, err);
}

// After a refusal: when the reason is a column that is not there, a sentence with those that are.
static soma_status explain(soma_status status, soma_parquet *pq, const soma_parquet_query *q, soma_error *err) {
    soma_parquet_query all = {.path = q->path};
    soma_table *t;
    if (!err || status != SOMA_BAD_INPUT || run_query(&t, pq, &all, NULL) != SOMA_OK) return status;
    soma_str have = {0};
    for (int i = 0; i < t->n_columns; i++) soma__str_printf(&have, "%s%s", i ? ", " : "", t->columns[i].name);
    for (int i = -1; i < q->n_columns; i++) {
        const char *name = i < 0 ? q->where : q->columns[i];
        if (!name || soma__table_column(t, name)) continue;
        status =
            soma__fail(err, SOMA_NOT_FOUND, "%s: the column \"%s\" is missing; it has %s", q->path, name, have.text ? have.text : "none");
        break;
    }
    soma__str_free(&have);
    soma__table_free(t);
    return status;
}

soma_status soma__parquet_read(soma_table **t, soma_parquet *pq, const soma_parquet_query *query, soma_error *err) {
    *t = NULL;
    if (!soma__file_exists(query->path)) return soma__fail(err, SOMA_NOT_FOUND, "%s: no such file", query->path);
    return explain(run_query(t, pq, query, err), pq, query, err);
}

void soma__table_free(soma_table *out) {
    table *t = (table *)out;
    if (!t) return;
    for (int c = 0; c < t->t.n_columns; c++) {
        soma__free(t->readings[c].numbers);
        soma__free(t->readings[c].texts);
        soma__free(t->readings[c].starts);
    }
    soma__free(t->readings);
    soma__free(t->columns);
    soma__arena_free(&t->arena);
    soma__free(t);
}

const soma_column *soma__table_column(const soma_table *t, const char *name) {
    for (int i = 0; i < t->n_columns; i++)
        if (!strcmp(t->columns[i].name, name)) return &t->columns[i];
    return NULL;
}

// ---- writing

static const struct {
    const char *sql;
    duckdb_type type;
    size_t size;
} types[] = {
    [SOMA_PARQUET_I64] = {"BIGINT", DUCKDB_TYPE_BIGINT, 8},
    [SOMA_PARQUET_F32] = {"FLOAT", DUCKDB_TYPE_FLOAT, 4},
    [SOMA_PARQUET_F64] = {"DOUBLE", DUCKDB_TYPE_DOUBLE, 8},
    [SOMA_PARQUET_BOOL] = {"BOOLEAN", DUCKDB_TYPE_BOOLEAN, sizeof(bool)},
    [SOMA_PARQUET_TEXT] = {"VARCHAR", DUCKDB_TYPE_VARCHAR, sizeof(const char *)},
};

static int64_t values_per_row(const soma_parquet_field *f) {
    int64_t n = 1;
    for (int d = 0; d < f->n_dims; d++) n *= f->shape[d];
    return n;
}

static duckdb_logical_type type_of(const soma_parquet_field *f) {
    duckdb_logical_type type = duckdb_create_logical_type(types[f->type].type);
    for (int d = 0; d < f->n_dims; d++) {
        duckdb_logical_type list = duckdb_create_list_type(type);
        duckdb_destroy_logical_type(&type);
        type = list;
    }
    return type;
}

// Fills `n` entries at depth `dim` with the values that start at `values`.
static bool fill_vector(duckdb_vector vector, const soma_parquet_field *f, int dim, idx_t n, const char *values) {
    if (dim < f->n_dims) {
        idx_t each = (idx_t)f->shape[dim];
        if (duckdb_list_vector_reserve(vector, n * each) != DuckDBSuccess || duckdb_list_vector_set_size(vector, n * each) != DuckDBSuccess)
            return false;
        duckdb_list_entry *entries = duckdb_vector_get_data(vector);
        for (idx_t i = 0; i < n; i++) entries[i] = (duckdb_list_entry){i * each, each};
        return fill_vector(duckdb_list_vector_get_child(vector), f, dim + 1, n * each, values);
    }
    if (f->type == SOMA_PARQUET_TEXT) {
        for (idx_t i = 0; i < n; i++) duckdb_vector_assign_string_element(vector, i, ((const char *const *)values)[i]);
    } else if (n) {
        memcpy(duckdb_vector_get_data(vector), values, n * types[f->type].size);
    }
    return true;
}

static bool append_rows(duckdb_appender appender, duckdb_data_chunk chunk, const soma_parquet_field *fields, int n_fields, int64_t n_rows) {
    int64_t most = (int64_t)duckdb_vector_size();
    for (int64_t row = 0; row < n_rows; row += most) {
        idx_t n = (idx_t)SOMA_MIN(most, n_rows - row);
        duckdb_data_chunk_reset(chunk);
        for (int c = 0; c < n_fields; c++) {
            size_t stride = (size_t)values_per_row(&fields[c]) * types[fields[c].type].size;
            const char *values = (const char *)fields[c].values + (size_t)row * stride;
            if (!fill_vector(duckdb_data_chunk_get_vector(chunk, (idx_t)c), &fields[c], 0, n, values)) return false;
        }
        duckdb_data_chunk_set_size(chunk, n);
        if (duckdb_append_data_chunk(appender, chunk) != DuckDBSuccess) return false;
    }
    return duckdb_appender_close(appender) == DuckDBSuccess;
}

static soma_status fill_rows(soma_parquet *pq, const char *name, const char *path, const soma_parquet_field *fields, int n_fields,
                             int64_t n_rows, soma_error *err) {
    duckdb_logical_type *logical = soma__calloc((size_t)n_fields, sizeof *logical);
    if (!logical) return soma__no_memory(err, path);
    for (int c = 0; c < n_fields; c++) logical[c] = type_of(&fields[c]);
    duckdb_data_chunk chunk = duckdb_create_data_chunk(logical, (idx_t)n_fields);
    duckdb_appender appender = NULL;
    bool ok = chunk && duckdb_appender_create_ext(pq->connection, "temp", "main", name, &appender) == DuckDBSuccess &&
              append_rows(appender, chunk, fields, n_fields, n_rows);
    soma_status status = SOMA_OK;
    if (!ok) {
        const char *text = appender ? duckdb_appender_error(appender) : NULL;
        status = soma__fail(err, SOMA_IO, "%s: the rows cannot be written: %s", path, text ? text : "DuckDB gives no reason");
    }
    if (appender) duckdb_appender_destroy(&appender);
    if (chunk) duckdb_destroy_data_chunk(&chunk);
    for (int c = 0; c < n_fields; c++) duckdb_destroy_logical_type(&logical[c]);
    soma__free(logical);
    return status;
}

static soma_status run(soma_parquet *pq, soma_str *sql, const char *path, soma_error *err) {
    if (sql->failed) return soma__no_memory(err, path);
    duckdb_result result;
    soma_status status = SOMA_OK;
    if (duckdb_query(pq->connection, sql->text, &result) != DuckDBSuccess) {
        const char *text = duckdb_result_error(&result);
        status = soma__fail(err, SOMA_IO, "%s: cannot be written: %.400s", path, text ? text : "");
    }
    duckdb_destroy_result(&result);
    return status;
}

static void make_table(soma_str *sql, const char *create, const char *name, const soma_parquet_field *fields, int n_fields) {
    soma__str_printf(sql, "%s ", create);
    add_identifier(sql, name);
    soma__str_add(sql, " (");
    for (int c = 0; c < n_fields; c++) {
        if (c) soma__str_add(sql, ", ");
        add_identifier(sql, fields[c].name);
        soma__str_printf(sql, " %s", types[fields[c].type].sql);
        for (int d = 0; d < fields[c].n_dims; d++) soma__str_add(sql, "[]");
    }
    soma__str_add(sql, ")");
}

static void make_copy(soma_str *sql, const char *temporary, const char *key, const char *value) {
    soma__str_add(sql, "COPY rows TO ");
    add_path(sql, temporary, false);
    soma__str_add(sql, " (FORMAT parquet, COMPRESSION snappy");
    if (key) {
        soma__str_add(sql, ", KV_METADATA {");
        add_identifier(sql, key);
        soma__str_add(sql, ": ");
        add_literal(sql, value);
        soma__str_add(sql, "}");
    }
    soma__str_add(sql, "); DROP TABLE rows");
}

soma_status soma__parquet_write(soma_parquet *pq, const char *path, const soma_parquet_field *fields, int n_fields, int64_t n_rows,
                                const char *key, const char *value, soma_error *err) {
    char temporary[SOMA_PATH_MAX + 32];
    snprintf(temporary, sizeof temporary, "%s.part-%ld", path, (long)getpid());
    soma_str create = {0}, copy = {0};
    make_table(&create, "CREATE OR REPLACE TEMP TABLE", "rows", fields, n_fields);
    make_copy(&copy, temporary, key, value);
    soma_status status = run(pq, &create, path, err);
    if (status == SOMA_OK) status = fill_rows(pq, "rows", path, fields, n_fields, n_rows, err);
    if (status == SOMA_OK) status = run(pq, &copy, path, err);
    if (status == SOMA_OK) status = soma__file_publish(temporary, path, err);
    if (status != SOMA_OK) unlink(temporary);
    soma__str_free(&create);
    soma__str_free(&copy);
    return status;
}

// ---- SQL over rows that are not in a file

soma_status soma__parquet_append(soma_parquet *pq, const char *name, const soma_parquet_field *fields, int n_fields, int64_t n_rows,
                                 soma_error *err) {
    soma_str create = {0};
    make_table(&create, "CREATE TEMP TABLE IF NOT EXISTS", name, fields, n_fields);
    soma_status status = run(pq, &create, name, err);
    soma__str_free(&create);
    return status == SOMA_OK ? fill_rows(pq, name, name, fields, n_fields, n_rows, err) : status;
}

// As a part of a larger query a text can be nothing but a question; and it must be one.
static soma_status check_single(soma_parquet *pq, const char *sql, soma_error *err) {
    duckdb_extracted_statements statements = NULL;
    idx_t n = duckdb_extract_statements(pq->connection, sql, &statements);
    const char *text = n ? NULL : duckdb_extract_statements_error(statements);
    soma_status status = n == 1 ? SOMA_OK : soma__fail(err, SOMA_BAD_INPUT, "%.900s", text ? text : "a question is one SELECT");
    duckdb_destroy_extracted(&statements);
    return status;
}

soma_status soma__parquet_select(soma_table **out, soma_parquet *pq, const char *question, bool as_text, soma_error *err) {
    soma_str sql = {0};
    size_t len = strlen(question);
    while (len && strchr("; \n\t", question[len - 1])) len--;
    soma__str_add(&sql, as_text ? "SELECT COLUMNS(*)::VARCHAR FROM (" : "SELECT * FROM (");
    soma__str_add_bytes(&sql, question, len);
    soma__str_add(&sql, "\n)"); // a comment at the question's end ends there
    *out = NULL;
    soma_status status = sql.failed ? SOMA_OK : check_single(pq, sql.text, err);
    if (status == SOMA_OK) return fetch(out, pq, &sql, NULL, 0, err);
    soma__str_free(&sql);
    return status;
}

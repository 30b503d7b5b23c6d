// SPDX-License-Identifier: Apache-2.0
// libhdf5 behind one lock. Opened arrays are kept, with a cache of chunks, so that reading frame by frame does not inflate a chunk twice.
// A chunk is held in memory whole by the library: one that claims more than CHUNK_MAX is refused before it is read.
#include "format/hdf5.h"

#include <hdf5.h>
#include <pthread.h>
#include <string.h>

enum { N_KEPT = 16, CHUNK_MAX = 512 << 20, CACHE = 16 << 20, TEXT_MAX = 16 << 20, ENTRIES_MAX = 4000000, DEFLATE_MAX = 1100 };

typedef struct kept {
    char *name;
    hid_t id;
    soma_hdf5_array array;
    uint64_t used;
} kept;

struct soma_hdf5 {
    char *path;
    hid_t id;
    kept arrays[N_KEPT];
    uint64_t clock;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void start(void) {
    H5open();
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL); // nothing is printed
    H5PLset_loading_state(0);              // no code from plugins
}

static void take(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, start);
    pthread_mutex_lock(&lock);
}

static soma_status give(soma_status status) {
    pthread_mutex_unlock(&lock);
    return status;
}

// ---- errors

static herr_t note_reason(unsigned n, const H5E_error2_t *e, void *out) {
    if (e->desc && *e->desc) snprintf(out, 200, "%s", e->desc);
    return n > 6; // the innermost reasons speak of the library's own tables
}

static soma_status fail_hdf5(soma_error *err, const soma_hdf5 *f, const char *name, const char *verb) {
    char reason[200] = "";
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_DOWNWARD, note_reason, reason);
    return soma__fail(err, SOMA_BAD_INPUT, "%s: %s%scannot be %s%s%s", f->path, name, *name ? " " : "", verb, *reason ? ": " : "", reason);
}

// ---- files

soma_status soma__hdf5_open(soma_hdf5 **out, const char *path, soma_error *err) {
    soma_hdf5 *f = *out = soma__calloc(1, sizeof *f);
    if (!f) return soma__no_memory(err, path);
    f->path = soma__strdup(path);
    f->id = -1;
    soma_status status = f->path ? SOMA_OK : soma__no_memory(err, path);
    take();
    if (status == SOMA_OK && (f->id = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT)) < 0) status = fail_hdf5(err, f, "", "opened as HDF5");
    give(SOMA_OK);
    if (status == SOMA_OK) return SOMA_OK;
    soma__hdf5_close(f);
    *out = NULL;
    return status;
}

static void drop(kept *k) {
    if (k->name) H5Dclose(k->id);
    soma__free(k->name);
    *k = (kept){0};
}

void soma__hdf5_close(soma_hdf5 *f) {
    if (!f) return;
    take();
    for (int i = 0; i < N_KEPT; i++) drop(&f->arrays[i]);
    if (f->id >= 0) H5Fclose(f->id);
    give(SOMA_OK);
    soma__free(f->path);
    soma__free(f);
}

// ---- groups

// Whether every link on the way to `name` is one within this file (and there is anything at its end).
static bool is_inside(const soma_hdf5 *f, const char *name) {
    char path[1000];
    if (strlen(name) >= sizeof path) return false;
    for (size_t i = 1; i <= strlen(name); i++) {
        H5L_info_t info;
        if (name[i] && name[i] != '/') continue;
        snprintf(path, sizeof path, "%.*s", (int)i, name);
        if (!strcmp(path, "/")) continue;
        if (H5Lexists(f->id, path, H5P_DEFAULT) <= 0 || H5Lget_info(f->id, path, &info, H5P_DEFAULT) < 0) return false;
        if (info.type == H5L_TYPE_EXTERNAL || info.type >= H5L_TYPE_UD_MIN) return false;
    }
    return !strcmp(name, "/") || H5Oexists_by_name(f->id, name, H5P_DEFAULT) > 0;
}

typedef struct listing {
    soma_hdf5_entry *entries;
    size_t n, room;
    bool failed;
} listing;

static herr_t add_entry(hid_t group, const char *name, const H5L_info_t *link, void *user) {
    listing *l = user;
    H5O_info_t info;
    if (link->type != H5L_TYPE_HARD && link->type != H5L_TYPE_SOFT) return 0;
    if (H5Oget_info_by_name(group, name, &info, H5P_DEFAULT) < 0) return 0; // a link to nowhere
    if (info.type != H5O_TYPE_GROUP && info.type != H5O_TYPE_DATASET) return 0;
    l->failed = l->n >= ENTRIES_MAX || !SOMA_PUSH_ROOM(l->entries, l->n, l->room) || !(l->entries[l->n].name = soma__strdup(name));
    if (l->failed) return -1;
    l->entries[l->n++].group = info.type == H5O_TYPE_GROUP;
    return 0;
}

soma_status soma__hdf5_list(soma_hdf5_entry **entries, size_t *n, soma_hdf5 *f, const char *group, soma_error *err) {
    listing l = {0};
    soma_status status = SOMA_OK;
    take();
    hid_t id = is_inside(f, group) ? H5Gopen2(f->id, group, H5P_DEFAULT) : -1;
    if (id < 0 || H5Literate(id, H5_INDEX_NAME, H5_ITER_INC, NULL, add_entry, &l) < 0)
        status = l.failed ? soma__no_memory(err, "the names in a file") : fail_hdf5(err, f, group, "listed");
    if (id >= 0) H5Gclose(id);
    give(SOMA_OK);
    if (status != SOMA_OK) soma__hdf5_entries_free(l.entries, l.n);
    *entries = status == SOMA_OK ? l.entries : NULL;
    *n = status == SOMA_OK ? l.n : 0;
    return status;
}

void soma__hdf5_entries_free(soma_hdf5_entry *entries, size_t n) {
    for (size_t i = 0; i < n; i++) soma__free(entries[i].name);
    soma__free(entries);
}

// ---- arrays

static void describe_type(soma_hdf5_array *a, hid_t type) {
    static const char *const ints[2][4] = {{"uint8", "uint16", "uint32", "uint64"}, {"int8", "int16", "int32", "int64"}};
    size_t size = H5Tget_size(type);
    int rank = size == 1 ? 0 : size == 2 ? 1 : size == 4 ? 2 : size == 8 ? 3 : -1;
    a->kind = SOMA_HDF5_OTHER;
    a->dtype = "other";
    switch (H5Tget_class(type)) {
    case H5T_INTEGER:
        if (rank < 0) break;
        a->kind = SOMA_HDF5_NUMBER;
        a->dtype = ints[H5Tget_sign(type) != H5T_SGN_NONE][rank];
        break;
    case H5T_FLOAT:
        if (rank < 1) break;
        a->kind = SOMA_HDF5_NUMBER;
        a->dtype = rank == 1 ? "float16" : rank == 2 ? "float32" : "float64";
        break;
    case H5T_ENUM: // h5py's booleans
        a->kind = size == 1 ? SOMA_HDF5_NUMBER : SOMA_HDF5_OTHER;
        a->dtype = "bool";
        break;
    case H5T_STRING:
        a->kind = SOMA_HDF5_BYTES;
        a->dtype = "string";
        break;
    case H5T_VLEN: {
        hid_t base = H5Tget_super(type);
        bool bytes = base >= 0 && H5Tget_class(base) == H5T_INTEGER && H5Tget_size(base) == 1;
        if (base >= 0) H5Tclose(base);
        a->kind = bytes ? SOMA_HDF5_BYTES : SOMA_HDF5_OTHER;
        a->dtype = "bytes";
        break;
    }
    default: break;
    }
}

static soma_status describe_space(soma_hdf5_array *a, const soma_hdf5 *f, const char *name, hid_t id, soma_error *err) {
    hsize_t dims[H5S_MAX_RANK] = {0};
    hid_t space = H5Dget_space(id);
    int n = space >= 0 && H5Sget_simple_extent_type(space) != H5S_NULL ? H5Sget_simple_extent_ndims(space) : -1;
    if (n > 0) H5Sget_simple_extent_dims(space, dims, NULL);
    if (space >= 0) H5Sclose(space);
    if (n < 0 || n > SOMA_MAX_DIMS) {
        a->kind = SOMA_HDF5_OTHER;
        return SOMA_OK;
    }
    a->n_dims = n;
    a->row_size = 1;
    int64_t total = 1;
    for (int i = 0; i < n; i++) {
        a->shape[i] = (int64_t)SOMA_MIN(dims[i], (hsize_t)INT64_MAX);
        if (__builtin_mul_overflow(total, a->shape[i], &total) || total > INT64_MAX / 16)
            return soma__fail(err, SOMA_BAD_INPUT, "%s: %s has an impossible shape", f->path, name);
        if (i) a->row_size *= a->shape[i];
    }
    return SOMA_OK;
}

// Data elsewhere, chunks that would not fit into memory, and shapes beyond what any compression of the bytes there are could give.
static soma_status check_layout(const soma_hdf5 *f, const char *name, const soma_hdf5_array *a, hid_t id, hid_t type, soma_error *err) {
    hid_t plist = H5Dget_create_plist(id);
    hsize_t dims[H5S_MAX_RANK], size = H5Tget_size(type);
    if (plist < 0) return fail_hdf5(err, f, name, "read");
    int external = H5Pget_external_count(plist), n = 0;
    H5D_layout_t layout = H5Pget_layout(plist);
    if (layout == H5D_CHUNKED) n = H5Pget_chunk(plist, H5S_MAX_RANK, dims);
    H5Pclose(plist);
    if (external != 0 || layout == H5D_VIRTUAL)
        return soma__fail(err, SOMA_UNSUPPORTED, "%s: the data of %s lie in another file", f->path, name);
    for (int i = 0; i < n; i++)
        if (__builtin_mul_overflow(size, dims[i], &size) || size > CHUNK_MAX)
            return soma__fail(err, SOMA_BAD_INPUT, "%s: %s is stored in chunks of more than %d MB", f->path, name, CHUNK_MAX >> 20);
    double stored = (double)H5Dget_storage_size(id), claimed = (double)H5Tget_size(type);
    for (int i = 0; i < a->n_dims; i++) claimed *= (double)a->shape[i];
    if (claimed <= stored * DEFLATE_MAX) return SOMA_OK;
    return soma__fail(err, SOMA_BAD_INPUT, "%s: %s should have %.0f bytes, of which %.0f are stored; it was never written whole", f->path,
                      name, claimed, stored);
}

static soma_status describe_array(soma_hdf5_array *a, const soma_hdf5 *f, const char *name, hid_t id, soma_error *err) {
    hid_t type = H5Dget_type(id);
    if (type < 0) return fail_hdf5(err, f, name, "read");
    *a = (soma_hdf5_array){0};
    describe_type(a, type);
    soma_status status = describe_space(a, f, name, id, err);
    if (status == SOMA_OK) status = check_layout(f, name, a, id, type, err);
    H5Tclose(type);
    return status;
}

// The array of this name, opened now or before.
static soma_status get_array(kept **out, soma_hdf5 *f, const char *name, soma_error *err) {
    kept *k = &f->arrays[0];
    for (int i = 0; i < N_KEPT; i++) {
        kept *c = &f->arrays[i];
        if (c->name && !strcmp(c->name, name)) {
            c->used = ++f->clock;
            *out = c;
            return SOMA_OK;
        }
        if (c->used < k->used) k = c;
    }
    drop(k);
    if (!is_inside(f, name)) return soma__fail(err, SOMA_NOT_FOUND, "%s: there is no %s", f->path, name);
    hid_t plist = H5Pcreate(H5P_DATASET_ACCESS);
    H5Pset_chunk_cache(plist, 521, CACHE, 0.75);
    hid_t id = H5Dopen2(f->id, name, plist);
    H5Pclose(plist);
    if (id < 0) return fail_hdf5(err, f, name, "opened");
    soma_hdf5_array array;
    soma_status status = describe_array(&array, f, name, id, err);
    char *copy = status == SOMA_OK ? soma__strdup(name) : NULL;
    if (!copy) {
        H5Dclose(id);
        return status == SOMA_OK ? soma__no_memory(err, name) : status;
    }
    *k = (kept){.name = copy, .id = id, .array = array, .used = ++f->clock};
    *out = k;
    return SOMA_OK;
}

soma_status soma__hdf5_describe(soma_hdf5_array *a, soma_hdf5 *f, const char *name, soma_error *err) {
    kept *k;
    take();
    soma_status status = get_array(&k, f, name, err);
    if (status == SOMA_OK) *a = k->array;
    return give(status);
}

// ---- values

// Rows of an array, as the memory type given.
static soma_status read_rows(void *out, soma_hdf5 *f, kept *k, hid_t type, int64_t first, int64_t n, soma_error *err) {
    const soma_hdf5_array *a = &k->array;
    hsize_t from[SOMA_MAX_DIMS] = {(hsize_t)first}, count[SOMA_MAX_DIMS] = {(hsize_t)n};
    if (first < 0 || n < 0 || first + n > (a->n_dims ? a->shape[0] : 1))
        return soma__fail(err, SOMA_BAD_INPUT, "%s: %s has %lld rows, wanted are %lld to %lld", f->path, k->name,
                          (long long)(a->n_dims ? a->shape[0] : 1), (long long)first, (long long)(first + n - 1));
    if (n == 0 || a->row_size == 0) return SOMA_OK;
    for (int i = 1; i < a->n_dims; i++) count[i] = (hsize_t)a->shape[i];
    hid_t file = H5Dget_space(k->id), memory = a->n_dims ? H5Screate_simple(a->n_dims, count, NULL) : H5Screate(H5S_SCALAR);
    bool ok = file >= 0 && memory >= 0 && (!a->n_dims || H5Sselect_hyperslab(file, H5S_SELECT_SET, from, NULL, count, NULL) >= 0) &&
              H5Dread(k->id, type, memory, file, H5P_DEFAULT, out) >= 0;
    soma_status status = ok ? SOMA_OK : fail_hdf5(err, f, k->name, "read");
    if (file >= 0) H5Sclose(file);
    if (memory >= 0) H5Sclose(memory);
    return status;
}

static soma_status read_numbers(void *out, hid_t type, soma_hdf5 *f, const char *name, int64_t first, int64_t n, soma_error *err) {
    kept *k;
    SOMA_TRY(get_array(&k, f, name, err));
    if (k->array.kind != SOMA_HDF5_NUMBER) return soma__fail(err, SOMA_BAD_INPUT, "%s: %s holds no numbers", f->path, name);
    return read_rows(out, f, k, type, first, n, err);
}

soma_status soma__hdf5_floats(float *out, soma_hdf5 *f, const char *name, int64_t first, int64_t n, soma_error *err) {
    take();
    return give(read_numbers(out, H5T_NATIVE_FLOAT, f, name, first, n, err));
}

soma_status soma__hdf5_u8(uint8_t *out, soma_hdf5 *f, const char *name, int64_t first, int64_t n, soma_error *err) {
    take();
    return give(read_numbers(out, H5T_NATIVE_UINT8, f, name, first, n, err));
}

static soma_status copy_bytes(char **out, size_t *size, const void *data, size_t n, const char *name, soma_error *err) {
    *out = soma__alloc(n + 1);
    if (!*out) return soma__no_memory(err, name);
    if (n) memcpy(*out, data, n);
    (*out)[n] = 0;
    *size = n;
    return SOMA_OK;
}

// A row of texts of one size, of texts of any size, or of bytes of any number: the library allocates the latter two, and frees them.
static soma_status read_bytes(char **out, size_t *size, soma_hdf5 *f, const char *name, int64_t row, soma_error *err) {
    kept *k;
    SOMA_TRY(get_array(&k, f, name, err));
    if (k->array.kind != SOMA_HDF5_BYTES || k->array.row_size > 1)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: %s holds no texts", f->path, name);
    hid_t type = H5Dget_type(k->id);
    size_t width = H5Tget_size(type);
    bool any = H5Tget_class(type) == H5T_STRING && H5Tis_variable_str(type) > 0, bytes = H5Tget_class(type) == H5T_VLEN;
    soma_status status;
    if (any || bytes) {
        hvl_t list = {0};
        char *text = NULL;
        status = read_rows(bytes ? (void *)&list : (void *)&text, f, k, type, row, 1, err);
        if (status == SOMA_OK) status = copy_bytes(out, size, bytes ? list.p : text, bytes ? list.len : text ? strlen(text) : 0, name, err);
        H5free_memory(bytes ? list.p : text);
    } else {
        char *text = width <= TEXT_MAX ? soma__calloc(width + 1, 1) : NULL;
        status = text ? read_rows(text, f, k, type, row, 1, err) : soma__no_memory(err, name);
        if (status == SOMA_OK) status = copy_bytes(out, size, text, strnlen(text, width), name, err);
        soma__free(text);
    }
    H5Tclose(type);
    return status;
}

soma_status soma__hdf5_bytes(char **out, size_t *size, soma_hdf5 *f, const char *name, int64_t row, soma_error *err) {
    *out = NULL;
    take();
    return give(read_bytes(out, size, f, name, row, err));
}

// ---- attributes

static hid_t open_attribute(soma_hdf5 *f, const char *object, const char *name) {
    if (!is_inside(f, object) || H5Aexists_by_name(f->id, object, name, H5P_DEFAULT) <= 0) return -1;
    hid_t id = H5Aopen_by_name(f->id, object, name, H5P_DEFAULT, H5P_DEFAULT);
    hid_t space = id >= 0 ? H5Aget_space(id) : -1;
    bool single = space >= 0 && H5Sget_simple_extent_npoints(space) == 1;
    if (space >= 0) H5Sclose(space);
    if (id >= 0 && !single) H5Aclose(id);
    return single ? id : -1;
}

static soma_status read_text_attribute(char **out, hid_t id, const char *name, soma_error *err) {
    hid_t type = H5Aget_type(id);
    size_t size = type >= 0 ? H5Tget_size(type) : 0, n;
    soma_status status = SOMA_OK;
    if (type >= 0 && H5Tget_class(type) == H5T_STRING && H5Tis_variable_str(type) > 0) {
        char *text = NULL;
        if (H5Aread(id, type, &text) >= 0 && text) status = copy_bytes(out, &n, text, strlen(text), name, err);
        H5free_memory(text);
    } else if (type >= 0 && H5Tget_class(type) == H5T_STRING && size <= TEXT_MAX) {
        char *text = soma__calloc(size + 1, 1);
        if (!text) status = soma__no_memory(err, name);
        if (text && H5Aread(id, type, text) >= 0) status = copy_bytes(out, &n, text, strnlen(text, size), name, err);
        soma__free(text);
    }
    if (type >= 0) H5Tclose(type);
    return status;
}

soma_status soma__hdf5_text_attribute(char **out, soma_hdf5 *f, const char *object, const char *name, soma_error *err) {
    *out = NULL;
    take();
    hid_t id = open_attribute(f, object, name);
    soma_status status = id >= 0 ? read_text_attribute(out, id, name, err) : SOMA_OK;
    if (id >= 0) H5Aclose(id);
    return give(status);
}

bool soma__hdf5_number_attribute(double *out, soma_hdf5 *f, const char *object, const char *name) {
    take();
    hid_t id = open_attribute(f, object, name);
    bool ok = id >= 0 && H5Aread(id, H5T_NATIVE_DOUBLE, out) >= 0;
    if (id >= 0) H5Aclose(id);
    give(SOMA_OK);
    return ok;
}

// SPDX-License-Identifier: Apache-2.0
// POSIX files behind five verbs. Nothing here follows a half-written state: a writer's file has its name only when it is complete.
#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static _Atomic int64_t reads_left = -1; // -1: never fail

void soma__file_fail_after(int64_t n) { atomic_store(&reads_left, n); }

static bool read_refused(void) {
    return atomic_load_explicit(&reads_left, memory_order_relaxed) >= 0 && atomic_fetch_sub(&reads_left, 1) == 0;
}

static soma_status fail_errno(soma_error *err, const char *path, const char *verb) {
    int code = errno;
    return soma__fail(err, code == ENOENT ? SOMA_NOT_FOUND : SOMA_IO, "%s: cannot %s: %s", path, verb, strerror(code));
}

static soma_status open_regular(int *fd, struct stat *st, const char *path, soma_error *err) {
    if (read_refused()) {
        errno = EIO;
        return fail_errno(err, path, "read");
    }
    *fd = open(path, O_RDONLY | O_CLOEXEC);
    if (*fd < 0) return fail_errno(err, path, "open");
    if (fstat(*fd, st)) {
        close(*fd);
        return fail_errno(err, path, "stat");
    }
    if (S_ISREG(st->st_mode)) return SOMA_OK;
    close(*fd);
    return soma__fail(err, SOMA_BAD_INPUT, "%s: not a regular file", path);
}

soma_status soma__file_map(soma_file_map *map, const char *path, soma_error *err) {
    *map = (soma_file_map){0};
    int fd;
    struct stat st;
    SOMA_TRY(open_regular(&fd, &st, path, err));
    void *data = NULL;
    if (st.st_size > 0) data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    if (data == MAP_FAILED) return fail_errno(err, path, "map");
    *map = (soma_file_map){data, (size_t)st.st_size, (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec};
    return SOMA_OK;
}

void soma__file_unmap(soma_file_map *map) {
    if (map->data) munmap((void *)map->data, map->size);
    *map = (soma_file_map){0};
}

void soma__file_map_forget(const soma_file_map *map, size_t from, size_t size) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), begin = from / page * page;
    size_t end = SOMA_MIN((from + size + page - 1) / page * page, (map->size + page - 1) / page * page);
    if (map->data && end > begin) madvise((void *)(map->data + begin), end - begin, MADV_DONTNEED); // a hint: failing is harmless
}

soma_status soma__file_read(char **data, size_t *size, const char *path, size_t max_size, soma_error *err) {
    *data = NULL;
    *size = 0;
    int fd;
    struct stat st;
    SOMA_TRY(open_regular(&fd, &st, path, err));
    size_t len = (size_t)st.st_size, done = 0;
    if (len > max_size) {
        close(fd);
        return soma__fail(err, SOMA_BAD_INPUT, "%s: %zu bytes, more than the %zu that such a file may have", path, len, max_size);
    }
    char *buffer = soma__alloc(len + 1);
    while (buffer && done < len) {
        ssize_t got = read(fd, buffer + done, len - done);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) break;
        done += (size_t)got;
    }
    close(fd);
    if (!buffer) return soma__no_memory(err, path);
    if (done < len) {
        soma__free(buffer);
        return soma__fail(err, SOMA_IO, "%s: read stopped after %zu of %zu bytes", path, done, len);
    }
    buffer[len] = 0;
    *data = buffer;
    *size = len;
    return SOMA_OK;
}

soma_status soma__file_writer_open(soma_file_writer *w, const char *path, soma_error *err) {
    w->file = NULL;
    if (strlen(path) >= sizeof w->path) return soma__fail(err, SOMA_BAD_INPUT, "%.60s...: the path is too long", path);
    strcpy(w->path, path);
    snprintf(w->temporary, sizeof w->temporary, "%s.part-%ld", path, (long)getpid());
    w->file = fopen(w->temporary, "wb");
    return w->file ? SOMA_OK : fail_errno(err, w->temporary, "create");
}

soma_status soma__file_writer_put(soma_file_writer *w, const void *data, size_t size, soma_error *err) {
    return !size || fwrite(data, size, 1, w->file) == 1 ? SOMA_OK : fail_errno(err, w->temporary, "write");
}

soma_status soma__file_writer_commit(soma_file_writer *w, soma_error *err) {
    bool ok = !fflush(w->file) && !fsync(fileno(w->file));
    ok = !fclose(w->file) && ok;
    w->file = NULL;
    if (ok && !rename(w->temporary, w->path)) return SOMA_OK;
    soma_status status = fail_errno(err, w->path, "write");
    unlink(w->temporary);
    return status;
}

void soma__file_writer_close(soma_file_writer *w) {
    if (!w || !w->file) return;
    fclose(w->file);
    unlink(w->temporary);
    w->file = NULL;
}

soma_status soma__file_write(const char *path, const void *data, size_t size, soma_error *err) {
    soma_file_writer w;
    SOMA_TRY(soma__file_writer_open(&w, path, err));
    soma_status status = soma__file_writer_put(&w, data, size, err);
    if (status == SOMA_OK) status = soma__file_writer_commit(&w, err);
    soma__file_writer_close(&w);
    return status;
}

soma_status soma__file_publish(const char *temporary, const char *path, soma_error *err) {
    int fd = open(temporary, O_RDONLY | O_CLOEXEC);
    bool ok = fd >= 0 && !fsync(fd);
    if (fd >= 0) close(fd);
    if (ok && !rename(temporary, path)) return SOMA_OK;
    soma_status status = fail_errno(err, path, "write");
    unlink(temporary);
    return status;
}

bool soma__file_exists(const char *path) {
    struct stat st;
    return !stat(path, &st) && S_ISREG(st.st_mode);
}

bool soma__dir_exists(const char *path) {
    struct stat st;
    return !stat(path, &st) && S_ISDIR(st.st_mode);
}

soma_status soma__dir_make(const char *path, soma_error *err) {
    char part[SOMA_PATH_MAX];
    size_t len = strlen(path);
    if (!len || len >= sizeof part) return soma__fail(err, SOMA_BAD_INPUT, "%.60s: not a usable folder name", path);
    memcpy(part, path, len + 1);
    for (size_t i = 1; i <= len; i++) {
        if (part[i] != '/' && part[i] != 0) continue;
        char kept = part[i];
        part[i] = 0;
        if (mkdir(part, 0777) && errno != EEXIST) return fail_errno(err, part, "make the folder");
        part[i] = kept;
    }
    return soma__dir_exists(path) ? SOMA_OK : soma__fail(err, SOMA_IO, "%s: exists and is not a folder", path);
}

soma_status soma__dir_remove(const char *path, soma_error *err) {
    struct stat st;
    if (lstat(path, &st)) return errno == ENOENT ? SOMA_OK : fail_errno(err, path, "stat");
    if (!S_ISDIR(st.st_mode)) return unlink(path) ? fail_errno(err, path, "remove") : SOMA_OK;
    char **names;
    size_t n;
    SOMA_TRY(soma__dir_list(&names, &n, path, err));
    soma_status status = SOMA_OK;
    for (size_t i = 0; i < n && status == SOMA_OK; i++) {
        char inner[SOMA_PATH_MAX];
        status = soma__path_join(inner, path, names[i], err);
        if (status == SOMA_OK) status = soma__dir_remove(inner, err);
    }
    soma__dir_list_free(names, n);
    if (status == SOMA_OK && rmdir(path)) status = fail_errno(err, path, "remove");
    return status;
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

soma_status soma__dir_list(char ***names, size_t *n_names, const char *path, soma_error *err) {
    *names = NULL;
    *n_names = 0;
    DIR *dir = opendir(path);
    if (!dir) return fail_errno(err, path, "list");
    char **list = NULL;
    size_t n = 0, room = 0;
    bool ok = true;
    for (struct dirent *entry; ok && (entry = readdir(dir));) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        ok = SOMA_PUSH_ROOM(list, n, room) && (list[n] = soma__strdup(entry->d_name));
        if (ok) n++;
    }
    closedir(dir);
    if (!ok) {
        soma__dir_list_free(list, n);
        return soma__no_memory(err, path);
    }
    if (n) qsort(list, n, sizeof *list, by_name);
    *names = list;
    *n_names = n;
    return SOMA_OK;
}

void soma__dir_list_free(char **names, size_t n_names) {
    for (size_t i = 0; i < n_names; i++) soma__free(names[i]);
    soma__free(names);
}

soma_status soma__path_join(char out[SOMA_PATH_MAX], const char *dir, const char *name, soma_error *err) {
    size_t len = strlen(dir);
    const char *slash = len && dir[len - 1] == '/' ? "" : "/";
    int n = snprintf(out, SOMA_PATH_MAX, "%s%s%s", dir, len ? slash : "", name);
    if (n >= 0 && n < SOMA_PATH_MAX) return SOMA_OK;
    return soma__fail(err, SOMA_BAD_INPUT, "%.60s.../%.60s: the path is too long", dir, name);
}

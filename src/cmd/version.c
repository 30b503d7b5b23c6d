// SPDX-License-Identifier: Apache-2.0
// `soma version`: what a bug report or a table of figures needs to name the program, the machine and the libraries underneath.
#include "cmd/cmd.h"

#include <cairo.h>
#include <duckdb.h>
#include <libavformat/avformat.h>
#include <libavutil/avutil.h>
#include <libwebsockets.h>
#include <msgpack.h>
#include <png.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#if SOMA_ENV
#include <mujoco/mujoco.h>
#endif
#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

#if defined(__clang__)
#define COMPILER "clang " __clang_version__
#else
#define COMPILER "gcc " __VERSION__
#endif

static void add_feature(json_t *list, bool has, const char *name) {
    if (has) json_array_append_new(list, json_string(name));
}

// What the processor offers to the kernels, whether this build has a kernel for it or not.
static json_t *cpu_features(void) {
    json_t *list = json_array();
#if defined(__x86_64__)
    unsigned a, b, c, d;
    __builtin_cpu_init();
    add_feature(list, __builtin_cpu_supports("avx2"), "avx2");
    add_feature(list, __builtin_cpu_supports("fma"), "fma");
    add_feature(list, __builtin_cpu_supports("avx512f"), "avx512f");
    add_feature(list, __builtin_cpu_supports("avx512bw"), "avx512bw");
    add_feature(list, __builtin_cpu_supports("avx512vnni"), "avx512vnni");
    if (__builtin_cpu_supports("avx512f") && __get_cpuid_count(7, 1, &a, &b, &c, &d)) add_feature(list, a >> 5 & 1, "avx512bf16");
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) { // Intel's manual, CPUID leaf 7: EDX bits 22, 24, 25
        add_feature(list, d >> 24 & 1, "amx-tile");
        add_feature(list, d >> 22 & 1, "amx-bf16");
        add_feature(list, d >> 25 & 1, "amx-int8");
    }
#elif defined(__aarch64__)
    add_feature(list, true, "neon");
    add_feature(list, getauxval(AT_HWCAP2) >> 14 & 1, "bf16"); // HWCAP2_BF16
#endif
    return list;
}

// "model name" of /proc/cpuinfo; the architecture where there is none (ARM).
static void cpu_name(char *out, size_t size) {
    struct utsname u = {0};
    uname(&u);
    snprintf(out, size, "%s", u.machine);
    FILE *f = fopen("/proc/cpuinfo", "r");
    char line[256];
    while (f && fgets(line, sizeof line, f)) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) || !colon) continue;
        line[strcspn(line, "\n")] = 0;
        snprintf(out, size, "%s", colon + 2);
        break;
    }
    if (f) fclose(f);
}

static void set_libraries(json_t *libs) {
    json_object_set_new(libs, "jansson", json_string(jansson_version_str()));
    json_object_set_new(libs, "duckdb", json_string(duckdb_library_version()));
    json_object_set_new(libs, "ffmpeg", json_string(av_version_info()));
    json_object_set_new(libs, "ffmpeg_license", json_string(avformat_license()));
    json_object_set_new(libs, "libwebsockets", json_string(lws_get_library_version()));
    json_object_set_new(libs, "msgpack-c", json_string(msgpack_version()));
    json_object_set_new(libs, "libpng", json_string(png_get_libpng_ver(NULL)));
    json_object_set_new(libs, "cairo", json_string(cairo_version_string()));
#if SOMA_ENV
    json_object_set_new(libs, "mujoco", json_string(mj_versionString()));
#endif
#ifdef SOMA_SENTENCEPIECE_VERSION
    json_object_set_new(libs, "sentencepiece", json_string(SOMA_SENTENCEPIECE_VERSION)); // the library has no call that tells
#endif
}

static json_t *collect(void) {
    char cpu[200];
    cpu_name(cpu, sizeof cpu);
    json_t *libs = json_object(), *features = cpu_features();
    set_libraries(libs);
    return json_pack("{s:s, s:s, s:s, s:o, s:o}", "version", soma_version(), "compiler", COMPILER, "cpu", cpu, "cpu_features", features,
                     "libraries", libs);
}

static int run(int argc, char **argv) {
    soma_cmd cmd = {.usage = "[--json]",
                    .about =
                        "Prints the version of soma, the compiler it was built with, this machine's processor and the libraries in use.\n",
                    .has_json = true};
    int code;
    if (!soma__cmd_parse(&cmd, argc, argv, &code)) return code;
    json_t *all = collect();
    if (cmd.json || !all) return soma__cmd_print_json(&cmd, all);
    printf("soma %s\ncompiler   %s\nprocessor  %s\nfeatures  ", soma_version(), COMPILER, json_string_value(json_object_get(all, "cpu")));
    size_t i;
    json_t *value;
    json_array_foreach(json_object_get(all, "cpu_features"), i, value) printf(" %s", json_string_value(value));
    printf("\n");
    const char *name;
    json_object_foreach(json_object_get(all, "libraries"), name, value) printf("%-15s %s\n", name, json_string_value(value));
    json_decref(all);
    return SOMA_EXIT_OK;
}

const soma_verb soma__verb_version = {"version", "what was built, on which machine, with which libraries", run};

// SPDX-License-Identifier: Apache-2.0
// Built-in robots against openpi's own transforms: a client's message in, what the model is given, what the robot gets back. The golden
// cases are those of golden/preprocess (robots, delta, conversions) and golden/policy_e2e; each tensor is printed with its error and
// tolerance.
#include "golden/golden.h"

#include "format/msgpack.h"
#include "policy/robot.h"
#include "policy/trace.h"
#include "serve/observe.h"
#include "text/prompt.h"

#include <unistd.h>

static soma_arena arena;
static soma_error err;

static const soma_safetensor *find(const soma_safetensors *st, const char *prefix, const char *name) {
    char full[160];
    snprintf(full, sizeof full, "%.79s%.79s", prefix, name);
    return soma__safetensors_find(st, full);
}

static double *doubles(const soma_safetensor *t) {
    double *values = soma__arena_alloc(&arena, sizeof *values * (size_t)(t->n_values + 1));
    float *rounded = soma__arena_alloc(&arena, sizeof *rounded * (size_t)(t->n_values + 1));
    soma__to_f32(rounded, t->dtype, t->data, t->n_values);
    for (int64_t i = 0; i < t->n_values; i++) values[i] = rounded[i];
    if (t->dtype == SOMA_F64) memcpy(values, t->data, sizeof *values * (size_t)t->n_values);
    return values;
}

// n values against the file's tensor, relative to 1 or the value, the larger.
static void hold(const soma_safetensors *st, const char *prefix, const char *name, const double *found, int64_t n, double tolerance) {
    const soma_safetensor *t = find(st, prefix, name);
    if (!t || t->n_values != n) fail_msg("%s: %s%s has not %lld values", soma__safetensors_path(st), prefix, name, (long long)n);
    golden_hold(st, t->name, "-", SOMA_F64, found, GOLDEN_EACH, tolerance);
}

// ---- a message made of a golden file's observation

static void put_tensor(soma_str *m, const char *key, const soma_safetensor *t) {
    static const struct {
        soma_dtype dtype;
        const char *numpy;
    } dtypes[] = {{SOMA_F64, "<f8"}, {SOMA_F32, "<f4"}, {SOMA_U8, "|u1"}};
    for (size_t i = 0; i < SOMA_COUNT(dtypes); i++)
        if (dtypes[i].dtype == t->dtype) {
            soma__msg_put_str(m, key);
            soma__msg_put_ndarray(m, dtypes[i].numpy, t->n_dims, t->shape, t->data, (size_t)t->n_values * soma_dtype_size(t->dtype));
        }
}

// Every tensor `prefix`KEY but actions; those of "images/" in a map of their own, as ALOHA's client sends them.
static soma_msg const *message_of(const soma_safetensors *st, const char *prefix, const char *prompt) {
    soma_str parts[2] = {0}, all = {0};
    size_t n[2] = {0};
    for (size_t i = 0; i < soma__safetensors_count(st); i++) {
        const soma_safetensor *t = soma__safetensors_at(st, i);
        const char *key = t->name + strlen(prefix);
        if (strncmp(t->name, prefix, strlen(prefix)) || !strcmp(key, "actions")) continue;
        bool image = !strncmp(key, "images/", 7);
        put_tensor(&parts[image], key + (image ? 7 : 0), t);
        n[image]++;
    }
    soma__msg_put_map(&all, n[0] + (n[1] > 0) + (prompt != NULL));
    soma__str_add_bytes(&all, parts[0].text, parts[0].len);
    if (prompt) {
        soma__msg_put_str(&all, "prompt");
        soma__msg_put_str(&all, prompt);
    }
    if (n[1]) {
        soma__msg_put_str(&all, "images");
        soma__msg_put_map(&all, n[1]);
        soma__str_add_bytes(&all, parts[1].text, parts[1].len);
    }
    char *bytes = soma__arena_alloc(&arena, all.len);
    memcpy(bytes, all.text, all.len);
    const soma_msg *m;
    if (soma__msg_parse(&m, &arena, bytes, all.len, true, &err)) fail_msg("%s", err.text);
    soma__str_free(&parts[0]);
    soma__str_free(&parts[1]);
    soma__str_free(&all);
    return m;
}

// What a policy with this robot tells of itself.
static soma_policy_info info_of(const soma_robot *r) {
    static const char *names[3][SOMA_ROBOT_NAMES];
    for (int i = 0; i < r->n_cameras; i++) names[0][i] = r->cameras[i];
    for (int i = 0; i < r->n_ignored; i++) names[1][i] = r->ignored[i];
    for (int i = 0; i < r->n_state_keys; i++) names[2][i] = r->state_keys[i];
    return (soma_policy_info){.n_state = r->n_state,
                              .n_cameras = r->n_cameras,
                              .camera_names = names[0],
                              .n_ignored = r->n_ignored,
                              .ignored = names[1],
                              .n_state_keys = r->n_state_keys,
                              .state_keys = names[2]};
}

static void observe(soma_obs *obs, const soma_robot *r, const soma_msg *m) {
    soma_policy_info info = info_of(r);
    if (soma__observe(obs, &info, m, &arena, &err)) fail_msg("%s", err.text);
}

// `json` as a robot of this model; what it is "like" beneath it.
static void make_robot(soma_robot *r, const char *json, const soma_model *model) {
    json_t *config = json_pack("{s:o}", "robot", json_loads(json, 0, NULL));
    if (soma__robot_resolve(config, "nowhere", "", &err)) fail_msg("%s", err.text);
    if (soma__robot_read(r, json_object_get(config, "robot"), model, json, &err)) fail_msg("%s", err.text);
    json_decref(config);
}

// ---- golden/preprocess: robots

static const char *const pi_cameras[] = {"base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb"}, *const fast_droid_cameras[] = {
                                                                                                     "base_0_rgb", "base_1_rgb",
                                                                                                     "wrist_0_rgb"};

static void hold_pictures(const soma_safetensors *st, const char *prefix, const soma_robot *r, const soma_obs *obs,
                          const char *const *model_cameras) {
    for (int slot = 0; slot < 3; slot++) {
        char key[160];
        snprintf(key, sizeof key, "out.image/%s", model_cameras[slot]);
        const soma_safetensor *want = find(st, prefix, key);
        snprintf(key, sizeof key, "out.image_mask/%s", model_cameras[slot]);
        const soma_safetensor *mask = find(st, prefix, key);
        const soma_image *image = NULL;
        for (int i = 0; i < obs->n_images; i++)
            for (int c = 0; c < r->n_cameras; c++)
                if (!strcmp(r->cameras[c], obs->images[i].camera) && r->slots[c] == slot) image = &obs->images[i];
        const bool given = image || r->absent_black;
        static const uint8_t black[24 * 32 * 3];
        assert_true(want->n_values <= (int64_t)sizeof black);
        if (image) assert_true((int64_t)image->width * image->height * 3 == want->n_values);
        golden_hold(st, mask->name, "-", SOMA_BOOL, &given, GOLDEN_MAX, 0);
        golden_hold(st, want->name, "-", SOMA_U8, image ? image->pixels : black, GOLDEN_MAX, 0);
    }
}

static void hold_robot(const soma_safetensors *st, const char *name, const char *json, const char *model_type, const char *const *cameras,
                       const char *model_actions, const char *robot_actions) {
    char prefix[80], in[80];
    snprintf(prefix, sizeof prefix, "%s.", name);
    snprintf(in, sizeof in, "%s.in.", name);
    const bool pi0 = !strcmp(model_type, "pi0"), fast = !strcmp(model_type, "pi0_fast");
    soma_model model = {.info = {.type = model_type, .state_input = pi0}};
    model.info.form = pi0 ? SOMA_PROMPT_PI0 : fast ? SOMA_PROMPT_FAST : SOMA_PROMPT_PI05;
    model.info.answer.max = fast; // it writes its actions
    soma_robot *r = soma__arena_alloc(&arena, sizeof *r);
    make_robot(r, json, &model);
    soma_obs obs;
    observe(&obs, r, message_of(st, in, "do it"));
    assert_string_equal(obs.prompt, "do it");
    hold_pictures(st, prefix, r, &obs, cameras);
    // the state: its parts one behind the other, then the model's convention
    double state[32];
    const soma_safetensor *whole = find(st, in, "state"), *joints = find(st, in, "joint_position");
    if (whole)
        memcpy(state, whole->data, 8 * (size_t)whole->n_values);
    else {
        memcpy(state, joints->data, 8 * 7);
        memcpy(state + 7, find(st, in, "gripper_position")->data, 8);
    }
    for (int i = 0; i < r->n_state; i++) assert_true(obs.state[i] == (float)state[i]);
    soma__form_state(r->state_forms, state, r->n_state);
    hold(st, prefix, "out.state", state, r->n_state, 1e-12);
    const soma_safetensor *actions = find(st, in, "actions");
    int64_t rows = actions->shape[0];
    double *x = doubles(actions);
    for (int64_t s = 0; s < rows; s++) soma__form_actions_in(r->action_forms, x + s * r->n_actions, r->n_actions);
    hold(st, prefix, "out.actions", x, actions->n_values, 1e-12);
    const soma_safetensor *from_model = find(st, model_actions, "");
    double *y = doubles(from_model), *out = soma__arena_alloc(&arena, sizeof *out * (size_t)from_model->n_values);
    for (int64_t s = 0; s < from_model->shape[0]; s++) {
        memcpy(out + s * r->n_actions, y + s * from_model->shape[1], sizeof *out * (size_t)r->n_actions);
        soma__form_actions_out(r->action_forms, out + s * r->n_actions, r->n_actions);
    }
    hold(st, robot_actions, "robot_actions", out, from_model->shape[0] * r->n_actions, 1e-12);
}

static void test_golden_robots(void **state) {
    soma_safetensors *st = golden_open("preprocess/robots.safetensors");
    static const char plain[] = "{\"like\": \"aloha\", \"convert\": []}", aloha[] = "{\"like\": \"aloha\"}",
                      libero[] = "{\"like\": \"libero\"}", droid[] = "{\"like\": \"droid\"}";
    hold_robot(st, "aloha.adapt0.cams2", plain, "pi0", pi_cameras, "aloha.adapt0.cams2.model_actions", "aloha.adapt0.cams2.");
    hold_robot(st, "aloha.adapt0.cams4", plain, "pi0", pi_cameras, "aloha.adapt0.cams4.model_actions", "aloha.adapt0.cams4.");
    hold_robot(st, "aloha.adapt1.cams2", aloha, "pi0", pi_cameras, "aloha.adapt1.cams2.model_actions", "aloha.adapt1.cams2.");
    hold_robot(st, "aloha.adapt1.cams4", aloha, "pi05", pi_cameras, "aloha.adapt1.cams4.model_actions", "aloha.adapt1.cams4.");
    hold_robot(st, "droid.pi0", droid, "pi0", pi_cameras, "droid.model_actions", "droid.");
    hold_robot(st, "droid.pi05", droid, "pi05", pi_cameras, "droid.model_actions", "droid.");
    hold_robot(st, "droid.pi0_fast", "{\"like\": \"pi0_fast_droid\"}", "pi0_fast", fast_droid_cameras, "droid.model_actions", "droid.");
    // the file has one model's output for both robots
    for (int i = 0; i < 3; i++) {
        static const char *const names[] = {"libero.pi0", "libero.pi05", "libero.pi0_fast"}, *const types[] = {"pi0", "pi05", "pi0_fast"};
        hold_robot(st, names[i], libero, types[i], pi_cameras, "droid.model_actions", "libero.");
    }
    soma__safetensors_close(st);
    soma__arena_free(&arena);
}

// ---- golden/preprocess: pictures told as floats

static void test_golden_convert(void **state) {
    soma_safetensors *st = golden_open("preprocess/convert_u8.safetensors");
    const soma_safetensor *in = golden_find(st, "input_f32");
    soma_str m = {0};
    soma__msg_put_map(&m, 2);
    put_tensor(&m, "scene", in);
    soma__msg_put_str(&m, "state");
    soma__msg_put_real(&m, 1);
    const soma_msg *message;
    assert_int_equal(soma__msg_parse(&message, &arena, m.text, m.len, true, &err), SOMA_OK);
    static const char *const cameras[] = {"scene"};
    const soma_policy_info info = {.n_state = 1, .n_cameras = 1, .camera_names = cameras};
    soma_obs obs;
    if (soma__observe(&obs, &info, message, &arena, &err)) fail_msg("%s", err.text);
    golden_hold(st, "convert_to_uint8", "-", SOMA_U8, obs.images[0].pixels, GOLDEN_MAX, 0);
    soma__str_free(&m);
    soma__safetensors_close(st);
    soma__arena_free(&arena);
}

// ---- golden/wire: messages of openpi's own client, through the built-in robots

static void hold_message(const char *file, const char *robot, int n_images, double first_state, double last_state) {
    char path[SOMA_PATH_MAX], name[80], json[80], *bytes;
    size_t size;
    const soma_msg *m;
    soma_model model = {.info = {.type = "pi0", .state_input = true, .form = SOMA_PROMPT_PI0}};
    soma_robot *r = soma__arena_alloc(&arena, sizeof *r);
    soma_obs obs;
    snprintf(name, sizeof name, "wire/%s.msgpack", file);
    golden_path(path, name);
    snprintf(json, sizeof json, "{\"like\": \"%s\"}", robot);
    make_robot(r, json, &model);
    if (soma__file_read(&bytes, &size, path, 1 << 24, &err) || soma__msg_parse(&m, &arena, bytes, size, true, &err))
        fail_msg("%s", err.text);
    observe(&obs, r, m);
    golden_same(name, robot,
                obs.n_images == n_images && fabs(obs.state[0] - first_state) < 1e-6 && fabs(obs.state[r->n_state - 1] - last_state) < 1e-6);
    soma__free(bytes);
}

static void test_golden_wire(void **state) { // the numbers are those of wire.json
    hold_message("libero_obs", "libero", 2, -1.664196009106297, -1.5391083290695422);
    hold_message("droid_obs", "droid", 2, 1.2218961024526556, 0.6317736471725715);
    hold_message("droid_obs_scalar_gripper", "droid", 2, -1.0138620138168335, 0.25);
    hold_message("aloha_obs", "aloha", 3, 1.4099270105361938, 0.7846201062202454);
    soma__arena_free(&arena);
}

// ---- golden/policy_e2e

// The golden files' stand-in tokenizer: one id per character, BOS 2.
static int64_t stand_in(int64_t *ids, const char *text, int vocab) {
    int64_t n = 0;
    ids[n++] = 2;
    for (; *text; text++) ids[n++] = 3 + (unsigned char)*text % (vocab - 3);
    return n;
}

typedef struct flight {
    soma_safetensors *st;
    json_t *about, *config;
    char folder[SOMA_PATH_MAX];
    soma_model *model;
    soma_robot robot;
    soma_rows rows;
    soma_obs obs;
    int64_t ids[1024];
    uint8_t mask[1024];
} flight;

static void open_flight(flight *f, const char *name, const char *json) {
    char path[SOMA_PATH_MAX + 16], file[80];
    snprintf(file, sizeof file, "policy_e2e/%s.safetensors", name);
    f->st = golden_open(file);
    snprintf(file, sizeof file, "policy_e2e/%s.json", name);
    if (soma__json_load(&f->about, golden_path(path, file), &err)) fail_msg("%s", err.text);
    snprintf(f->folder, sizeof f->folder, GOLDEN "policy_e2e/%s", json_string_value(json_object_get(f->about, "model_case")));
    snprintf(path, sizeof path, "%s/config.json", f->folder);
    if (soma__json_load(&f->config, path, &err)) fail_msg("%s", err.text);
    if (soma__model_new(&f->model, f->config, path, &err)) fail_msg("%s", err.text);
    make_robot(&f->robot, json, f->model);
    soma_norm norms[2];
    for (int i = 0; i < 2; i++) {
        char prefix[40];
        snprintf(prefix, sizeof prefix, "stats.%s.", i ? "actions" : "state");
        const soma_safetensor *mean = find(f->st, prefix, "mean");
        norms[i] = (soma_norm){.key = i ? "actions" : "state",
                               .size = (int)mean->n_values,
                               .mean = doubles(mean),
                               .std = doubles(find(f->st, prefix, "std")),
                               .q01 = doubles(find(f->st, prefix, "q01")),
                               .q99 = doubles(find(f->st, prefix, "q99"))};
    }
    static const char *const prompts[] = {"fold stack"};
    if (soma__norm_stats_new(&f->robot.stats, norms, 2, name, &err)) fail_msg("%s", err.text);
    if (soma__text_from_prompts(&f->robot.text, prompts, 1, &err)) fail_msg("%s", err.text);
    if (soma__robot_check(&f->robot, f->model, name, &err)) fail_msg("%s", err.text);
    if (soma__rows_new(&f->rows, &f->robot, f->model, 1, &err)) fail_msg("%s", err.text);
}

static void close_flight(flight *f) {
    soma__rows_free(&f->rows);
    soma__robot_close(&f->robot);
    soma__model_free(f->model);
    json_decref(f->about);
    json_decref(f->config);
    soma__safetensors_close(f->st);
    soma__arena_free(&arena);
}

// Pictures, masks and state as the reference's model got them; the text and its stand-in ids.
static void hold_inputs(flight *f) {
    const soma_model_info *info = &f->model->info;
    size_t picture = (size_t)(info->image_size * info->image_size) * 3;
    for (int c = 0; c < info->n_cameras; c++) {
        char key[80];
        snprintf(key, sizeof key, "image/%s", info->cameras[c]);
        const soma_safetensor *image = find(f->st, "model_in.", key);
        assert_int_equal(image->n_values, picture);
        golden_hold(f->st, image->name, "-", SOMA_U8, (uint8_t *)f->rows.images + (size_t)c * picture, GOLDEN_MAX, 0);
        snprintf(key, sizeof key, "image_mask/%s", info->cameras[c]);
        golden_hold(f->st, find(f->st, "model_in.", key)->name, "-", SOMA_U8, &f->rows.image_mask[c], GOLDEN_MAX, 0);
    }
    double state[32];
    for (int i = 0; i < info->state_dim; i++) state[i] = f->rows.state[i];
    hold(f->st, "model_out.", "state", state, info->state_dim, 1e-5); // the model hands it through
    hold(f->st, "model_in.", "state", state, info->state_dim, 1e-5);  // the message's f64 state is held as f32 here

    soma_prompt_form form = soma__robot_prompt_form(&f->robot, f->model);
    double normalised[SOMA_ROBOT_MAX_DIMS];
    soma__robot_state(&f->robot, f->obs.state, normalised);
    soma__norm_apply(f->robot.state, f->robot.state_rule, normalised, 1, f->robot.n_state);
    soma_str text = {0};
    soma__prompt_text(&text, form, f->obs.prompt, normalised, f->robot.n_state);
    char wanted[1024] = "";
    const json_t *part;
    size_t k;
    json_array_foreach(json_object_get(f->about, "texts"), k, part) strcat(wanted, json_string_value(part));
    assert_string_equal(text.text, wanted);
    int64_t n = stand_in(f->ids, text.text, (int)info->vocab);
    soma__str_free(&text);
    for (int64_t i = 0; i < info->max_tokens; i++) {
        f->mask[i] = i < n;
        if (i >= n) f->ids[i] = 0;
    }
    golden_hold(f->st, "model_in.tokenized_prompt", "-", SOMA_I64, f->ids, GOLDEN_MAX, 0);
    golden_hold(f->st, "model_in.tokenized_prompt_mask", "-", SOMA_U8, f->mask, GOLDEN_MAX, 0);
}

// The model's graphs on what the robot's side made; `noise` and `chunk` [S, A].
static void fly(flight *f, const void *noise, float *chunk) {
    const soma_model_info *info = &f->model->info;
    char path[] = "/tmp/soma_robots_XXXXXX", names[6][80];
    close(mkstemp(path));
    int64_t S = info->image_size, one = 1;
    size_t picture = (size_t)(S * S) * 3;
    soma_safetensor in[16];
    size_t n = 0;
    for (int c = 0; c < info->n_cameras; c++) {
        snprintf(names[2 * c], sizeof names[0], "image_u8.%s", info->cameras[c]);
        snprintf(names[2 * c + 1], sizeof names[0], "image_mask.%s", info->cameras[c]);
        in[n++] = (soma_safetensor){.name = names[2 * c],
                                    .dtype = SOMA_U8,
                                    .n_dims = 4,
                                    .shape = {1, S, S, 3},
                                    .data = (uint8_t *)f->rows.images + (size_t)c * picture};
        in[n++] = (soma_safetensor){.name = names[2 * c + 1], .dtype = SOMA_U8, .n_dims = 1, .shape = {1}, .data = f->rows.image_mask + c};
    }
    in[n++] = (soma_safetensor){.name = "tokens", .dtype = SOMA_I64, .n_dims = 2, .shape = {one, info->max_tokens}, .data = f->ids};
    in[n++] = (soma_safetensor){.name = "token_mask", .dtype = SOMA_U8, .n_dims = 2, .shape = {one, info->max_tokens}, .data = f->mask};
    in[n++] = (soma_safetensor){.name = "state", .dtype = SOMA_F32, .n_dims = 2, .shape = {one, info->state_dim}, .data = f->rows.state};
    in[n++] =
        (soma_safetensor){.name = "noise", .dtype = SOMA_F32, .n_dims = 3, .shape = {one, info->horizon, info->action_dim}, .data = noise};
    if (soma__safetensors_write(path, in, n, NULL, &err)) fail_msg("%s", err.text);
    soma_safetensors *inputs;
    soma_device *device;
    soma_trace trace = {0};
    const soma_device_opts d = {.threads = 1, .isa = ""};
    const soma_trace_opts o = {.dtype = "f32"};
    if (soma__safetensors_open(&inputs, path, &err) || soma__device_open(&device, "cpu", &d, &err) ||
        soma__trace_run(&trace, f->folder, inputs, &o, device, &err))
        fail_msg("%s", err.text);
    memcpy(chunk, soma__trace_find(&trace, "actions")->data, sizeof *chunk * (size_t)(info->horizon * info->action_dim));
    soma__trace_free(&trace);
    soma__device_close(device);
    soma__safetensors_close(inputs);
    unlink(path);
}

static void hold_flight(const char *name, const char *json) {
    flight *f = calloc(1, sizeof *f);
    open_flight(f, name, json);
    const soma_model_info *info = &f->model->info;
    observe(&f->obs, &f->robot, message_of(f->st, "obs.", json_string_value(json_object_get(f->about, "prompt"))));
    if (soma__robot_observe(&f->robot, &f->rows, 0, &f->obs, &err)) fail_msg("%s", err.text);
    hold_inputs(f);
    int64_t n = info->horizon * info->action_dim, m = info->horizon * f->robot.n_actions;
    float *chunk = soma__arena_alloc(&arena, sizeof *chunk * (size_t)n), *actions = soma__arena_alloc(&arena, sizeof *actions * (size_t)m);
    double *wide = soma__arena_alloc(&arena, sizeof *wide * (size_t)n);
    fly(f, find(f->st, "", "noise")->data, chunk);
    for (int64_t i = 0; i < n; i++) wide[i] = chunk[i];
    hold(f->st, "model_out.", "actions", wide, n, 1e-4);
    soma__robot_from_model(&f->robot, f->model, f->obs.state, chunk, actions);
    for (int64_t i = 0; i < m; i++) wide[i] = actions[i];
    hold(f->st, "", "actions", wide, m, 1e-4);
    close_flight(f);
    free(f);
}

static void test_golden_flights(void **state) {
    hold_flight("pi0_aloha", "{\"like\": \"aloha\"}");
    hold_flight("pi05_aloha", "{\"like\": \"aloha\"}");
    hold_flight("pi0_droid", "{\"like\": \"droid\"}");
    hold_flight("pi05_droid", "{\"like\": \"droid\"}");
    hold_flight("pi0_libero", "{\"like\": \"libero\", \"delta\": []}");
    hold_flight("pi05_libero", "{\"like\": \"libero\", \"delta\": []}");
    hold_flight("pi0_libero_delta", "{\"like\": \"libero\"}");
    hold_flight("pi05_libero_delta", "{\"like\": \"libero\", \"prompt_form\": \"pi0\"}");
}

// ---- the whole way of opening: openpi's folder and a robot's name

// A folder as openpi's converter leaves it: weights, config.json without a robot, assets/droid/norm_stats.json; and a vocabulary.
static void make_openpi_folder(char *folder, const flight *f) {
    static const char *const keys[] = {"state", "actions"};
    char path[SOMA_PATH_MAX], target[SOMA_PATH_MAX + 32];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    snprintf(target, sizeof target, "%s/model.safetensors", f->folder);
    assert_int_equal(symlink(target, path), 0);
    snprintf(path, sizeof path, "%s/config.json", folder);
    assert_int_equal(soma__json_save(f->config, path, &err), SOMA_OK);
    snprintf(path, sizeof path, "%s/assets/droid", folder);
    assert_int_equal(soma__dir_make(path, &err), SOMA_OK);
    soma_norm norms[] = {*f->robot.state, *f->robot.actions};
    for (int k = 0; k < 2; k++) norms[k].key = keys[k];
    soma_norm_stats *stats;
    assert_int_equal(soma__norm_stats_new(&stats, norms, 2, "folder", &err), SOMA_OK);
    snprintf(path, sizeof path, "%s/assets/droid/norm_stats.json", folder);
    assert_int_equal(soma__norm_stats_write(stats, path, &err), SOMA_OK);
    soma__norm_stats_free(stats);
    snprintf(path, sizeof path, "%s/vocab.json", folder);
    assert_int_equal(soma__text_save(f->robot.text, path, &err), SOMA_OK);
}

// soma_policy_open and soma_pilot_act give what the parts give that were held against openpi.
static void test_openpi_folder(void **state) {
    flight *f = calloc(1, sizeof *f);
    char folder[] = "/tmp/soma_openpi_XXXXXX";
    open_flight(f, "pi0_droid", "{\"like\": \"droid\"}");
    make_openpi_folder(folder, f);
    soma_policy *policy;
    soma_policy_opts po = soma_policy_defaults();
    assert_int_equal(soma_policy_open(&policy, folder, &po, &err), SOMA_NOT_FOUND);
    assert_non_null(strstr(err.text, "--robot"));
    strcpy(po.robot, "droid");
    strcpy(po.dtype, "f32");
    po.threads = 1;
    if (soma_policy_open(&policy, folder, &po, &err)) fail_msg("%s", err.text);
    soma_policy_info info = soma_policy_describe(policy);
    assert_true(info.n_state == 8 && info.n_state_keys == 2 && info.n_cameras == 2 && info.rate == 15);
    const soma_msg *m = message_of(f->st, "obs.", "stack");
    if (soma__observe(&f->obs, &info, m, &arena, &err)) fail_msg("%s", err.text);
    soma_pilot_opts o = soma_pilot_defaults();
    o.noise = 0;
    soma_pilot *pilot;
    soma_actions actions;
    if (soma_pilot_new(&pilot, policy, &o, &err) || soma_pilot_act(pilot, &f->obs, &actions, &err)) fail_msg("%s", err.text);

    if (soma__robot_observe(&f->robot, &f->rows, 0, &f->obs, &err)) fail_msg("%s", err.text);
    const soma_model_info *sizes = &f->model->info;
    for (int64_t i = 0; i < sizes->max_tokens; i++) f->ids[i] = f->rows.tokens[i], f->mask[i] = f->rows.token_mask[i];
    int64_t n = sizes->horizon * sizes->action_dim, k = sizes->horizon * info.n_actions;
    float *noise = soma__arena_alloc(&arena, (size_t)n * sizeof *noise), *chunk = soma__arena_alloc(&arena, (size_t)n * sizeof *chunk),
          *wanted = soma__arena_alloc(&arena, (size_t)k * sizeof *wanted);
    fly(f, noise, chunk);
    soma__robot_from_model(&f->robot, f->model, f->obs.state, chunk, wanted);
    for (int64_t i = 0; i < k; i++) assert_float_equal(actions.values[i], wanted[i], 1e-5);
    soma_pilot_free(pilot);
    soma_policy_close(policy);
    close_flight(f);
    free(f);
    assert_int_equal(soma__dir_remove(folder, &err), SOMA_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_golden_robots), cmocka_unit_test(test_golden_convert),
                                       cmocka_unit_test(test_golden_wire), cmocka_unit_test(test_golden_flights),
                                       cmocka_unit_test(test_openpi_folder)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

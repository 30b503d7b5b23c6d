// SPDX-License-Identifier: Apache-2.0
// The shared simulator of the table-top tasks. 5 ms physics steps, 50 ms control or another whole number of them; randomness only from
// soma_rng, so equal seeds give equal bits. What it refuses: an action that is not finite, a picture size that makes no sense, a control
// period that is no whole number of physics steps.
#include "env/tabletop.h"
#include "base/str.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define TIMESTEP 0.005 // seconds
enum { ARM_CONTYPE = 1, PICTURE_MIN = 8, PICTURE_MAX = 1024 };
#define FUNNEL 0.05 // metres from the target's axis where a descent begins
#define SUNK 0.04   // metres under the funnel: here the hand only rises

const char *const soma__cube_names[SOMA_CUBES] = {"red", "green", "blue"};
const char *const soma__tabletop_cameras[SOMA_TABLETOP_CAMERAS] = {"scene", "wrist"};
static const char *const cube_colours[SOMA_CUBES] = {"0.90 0.05 0.05 1", "0.05 0.70 0.10 1", "0.08 0.20 0.95 1"};

// Home: the tips over the near edge of the cubes' region, high enough that the hand hides none of them from the scene camera.
static const double home_tip[3] = {0.20, 0, 0.24};

// Cubes have contype 2 and conaffinity 3, the table 0 and 3, the arm 1 and 2 (arm.c).
// The table is a plane: small boxes resting on a large one were thrown over by MuJoCo 2.2.2 (2 of 200 seeds). impratio 10: with 1 a cube
// creeps out of the fingers while it is carried.
static const char head[] = "<mujoco model='tabletop'>\n"
                           "<compiler angle='radian'/>\n"
                           "<option timestep='%g' impratio='10'/>\n"
                           "<size njmax='1000' nconmax='200'/>\n"
                           "<visual><quality offsamples='0' shadowsize='0' numslices='20' numstacks='10'/><map znear='0.01' zfar='10'/>"
                           "<headlight ambient='0.42 0.42 0.42' diffuse='0.2 0.2 0.2' specular='0 0 0'/></visual>\n"
                           "<statistic extent='1' center='0.3 0 0'/>\n"
                           "<default>\n"
                           "  <default class='arm'><joint limited='true'/><geom contype='1' conaffinity='2' rgba='0.13 0.13 0.15 1'/>\n"
                           "    <default class='metal'><geom rgba='0.45 0.46 0.50 1'/></default>\n"
                           "    <default class='finger'><geom type='box' mass='0.035' condim='4' friction='1.5 0.02 0.0001'"
                           " rgba='0.95 0.80 0.15 1'/></default>\n"
                           "  </default>\n"
                           "  <default class='furniture'><geom contype='0' conaffinity='3' condim='4' rgba='0.95 0.75 0.10 1'/></default>\n"
                           "  <position ctrllimited='true' forcelimited='true'/>\n"
                           "</default>\n"
                           "<worldbody>\n"
                           "<light name='lamp' directional='true' castshadow='false' pos='0.3 0 1.5' dir='0 0 -1'"
                           " diffuse='0.45 0.45 0.45' specular='0.1 0.1 0.1'/>\n"
                           "<camera name='scene' pos='0.84 0 0.86' xyaxes='0 1 0 -0.86 0 0.57' fovy='%g'/>\n"
                           "<geom name='table' type='plane' size='0.6 0.6 0.1' pos='0.3 0 0' contype='0' conaffinity='3'"
                           " rgba='0.48 0.47 0.45 1'/>\n";

static const char cube_mjcf[] = "<body name='%s'><freejoint/><geom type='box' size='%g %g %g' mass='0.06' contype='2' conaffinity='3'"
                                " condim='4' friction='1 0.01 0.0001' rgba='%s'/></body>\n";

// ---- MuJoCo's own ways of speaking

static void mujoco_error(const char *text) { soma_check_failed(__FILE__, __LINE__, text); }
static void mujoco_warning(const char *text) { soma__log(SOMA_LOG_WARN, "MuJoCo: %s", text); }
static void hooks(void) { // by default it would write a file and exit
    mju_user_error = mujoco_error;
    mju_user_warning = mujoco_warning;
}

// Under a lock: the parser of this MuJoCo keeps the last model it read in a global.
static soma_status compile(mjModel **model, const char *xml, size_t len, soma_error *err) {
    static const char name[] = "tabletop.xml";
    mjVFS *files = soma__calloc(1, sizeof *files); // 2 MB: not for the stack
    if (!files) return soma__no_memory(err, "the simulator's model");
    mj_defaultVFS(files);
    static pthread_mutex_t reading = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&reading);
    char why[500] = "its file system in memory is full";
    if (mj_makeEmptyFileVFS(files, name, (int)len) == 0) {
        memcpy(files->filedata[0], xml, len);
        *model = mj_loadXML(name, files, why, sizeof why);
    }
    pthread_mutex_unlock(&reading);
    mj_deleteVFS(files);
    soma__free(files);
    return *model ? SOMA_OK : soma__fail(err, SOMA_UNSUPPORTED, "MuJoCo %s refuses the table-top model: %s", mj_versionString(), why);
}

static soma_status load(mjModel **model, const char *bodies, double fovy, soma_error *err) {
    soma_str xml = {0};
    soma__str_printf(&xml, head, TIMESTEP, fovy);
    soma__str_add(&xml, soma__arm_mjcf);
    for (int i = 0; i < SOMA_CUBES; i++) {
        soma__str_printf(&xml, cube_mjcf, soma__cube_names[i], SOMA_CUBE_HALF, SOMA_CUBE_HALF, SOMA_CUBE_HALF, cube_colours[i]);
    }
    soma__str_add(&xml, bodies);
    soma__str_add(&xml, "</worldbody>\n<actuator>\n");
    soma__str_add(&xml, soma__arm_actuators);
    soma__str_add(&xml, "</actuator>\n</mujoco>\n");
    soma_status status = xml.failed ? soma__no_memory(err, "the simulator's model") : compile(model, xml.text, xml.len, err);
    soma__str_free(&xml);
    return status;
}

// ---- open and close

soma_status soma__tabletop_open(soma_env **out, const soma_task *task, const char *bodies, double fovy, const soma_env_opts *opts,
                                soma_error *err) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, hooks);
    *out = NULL;
    int w = opts->image_width, h = opts->image_height;
    if (w < PICTURE_MIN || w > PICTURE_MAX || h < PICTURE_MIN || h > PICTURE_MAX) {
        return soma__fail(err, SOMA_BAD_INPUT, "%s: pictures of %d x %d pixels; each side must be %d to %d", task->name, w, h, PICTURE_MIN,
                          PICTURE_MAX);
    }
    soma_task at = soma__task_at(task, opts->rate);
    double period = 1 / (at.rate * TIMESTEP);
    if (!(opts->rate >= 0 && at.rate >= 1 && period > 0.999 && fabs(period - round(period)) < 1e-9)) {
        return soma__fail(err, SOMA_BAD_INPUT, "%s: %g Hz; a control period must be a whole number of %g s, and a second at most",
                          task->name, opts->rate, TIMESTEP);
    }
    soma_env *env = soma__calloc(1, sizeof *env);
    if (!env) return soma__no_memory(err, "an environment");
    env->task = task;
    env->substeps = (int)lround(period);
    env->max_steps = at.max_steps;
    env->opts = *opts;
    soma_status status = load(&env->model, bodies, fovy, err);
    for (int i = 0; status == SOMA_OK && i < SOMA_TABLETOP_CAMERAS; i++) {
        env->images[i] = soma__calloc((size_t)w * h, 3);
        if (!env->images[i]) status = soma__no_memory(err, "a picture");
    }
    if (status == SOMA_OK) {
        env->data = mj_makeData(env->model);
        if (!env->data) status = soma__no_memory(err, "the simulator's state");
    }
    if (status != SOMA_OK) {
        soma__tabletop_close(env);
        return status;
    }
    for (int i = 0; i < SOMA_TABLETOP_CAMERAS; i++) {
        int camera = mj_name2id(env->model, mjOBJ_CAMERA, soma__tabletop_cameras[i]);
        memcpy(env->camera_pos[i], env->model->cam_pos + 3 * camera, sizeof env->camera_pos[i]);
        memcpy(env->camera_quat[i], env->model->cam_quat + 4 * camera, sizeof env->camera_quat[i]);
    }
    for (int i = 0; i < SOMA_CUBES; i++) env->cube_bodies[i] = mj_name2id(env->model, mjOBJ_BODY, soma__cube_names[i]);
    env->tip_site = mj_name2id(env->model, mjOBJ_SITE, "tip");
    *out = env;
    return SOMA_OK;
}

void soma__tabletop_close(soma_env *env) {
    if (!env) return;
    soma__render_close(env->render);
    if (env->data) mj_deleteData(env->data);
    if (env->model) mj_deleteModel(env->model);
    for (int i = 0; i < SOMA_TABLETOP_CAMERAS; i++) soma__free(env->images[i]);
    soma__free(env);
}

// ---- reset

static double spread(soma_rng *rng, double half) { return soma__rng_range(rng, -half, half); }

// Light: where it comes from, how bright and how warm it is. Cameras: a mount that is never quite where it was, 1.5 cm and 1 degree for the
// one on a stand, 2 mm and half a degree for the one on the hand.
static void jitter(soma_env *env, soma_rng rng) {
    static const double shift[SOMA_TABLETOP_CAMERAS] = {0.015, 0.002}, turn[SOMA_TABLETOP_CAMERAS] = {0.017, 0.009};
    mjModel *m = env->model;
    double amount = env->opts.jitter ? 1 : 0;
    double dir[3] = {amount * spread(&rng, 0.5), amount * spread(&rng, 0.5), -1};
    mju_normalize3(dir);
    double bright = 0.45 + amount * spread(&rng, 0.12), warm = amount * spread(&rng, 0.05);
    for (int i = 0; i < 3; i++) {
        m->light_dir[i] = dir[i];
        m->light_diffuse[i] = (float)(bright + warm * (1 - i)); // red up, blue down
    }
    for (int c = 0; c < SOMA_TABLETOP_CAMERAS; c++) {
        int camera = mj_name2id(m, mjOBJ_CAMERA, soma__tabletop_cameras[c]);
        double axis[3], twist[4];
        for (int i = 0; i < 3; i++) m->cam_pos[3 * camera + i] = env->camera_pos[c][i] + amount * spread(&rng, shift[c]);
        for (int i = 0; i < 3; i++) axis[i] = spread(&rng, 1);
        mju_normalize3(axis);
        mju_axisAngle2Quat(twist, axis, amount * spread(&rng, turn[c]));
        mju_mulQuat(m->cam_quat + 4 * camera, env->camera_quat[c], twist);
    }
}

// All three places are drawn again until they are far enough apart, so that no cube's distribution differs from another's.
static void place_cubes(soma_env *env, soma_rng *rng, double apart, double yaw) {
    double at[SOMA_CUBES][2], nearest;
    do {
        nearest = INFINITY;
        for (int i = 0; i < SOMA_CUBES; i++) {
            at[i][0] = soma__rng_range(rng, SOMA_TABLE_X0, SOMA_TABLE_X1);
            at[i][1] = soma__rng_range(rng, SOMA_TABLE_Y0, SOMA_TABLE_Y1);
            for (int j = 0; j < i; j++) nearest = fmin(nearest, hypot(at[i][0] - at[j][0], at[i][1] - at[j][1]));
        }
    } while (nearest < apart);
    for (int i = 0; i < SOMA_CUBES; i++) {
        double angle = atan2(at[i][1], at[i][0]) + spread(rng, yaw);
        double *q = env->data->qpos + env->model->jnt_qposadr[env->model->body_jntadr[env->cube_bodies[i]]];
        memcpy(q, (double[7]){at[i][0], at[i][1], SOMA_CUBE_HALF, cos(angle / 2), 0, 0, sin(angle / 2)}, 7 * sizeof *q);
    }
}

void soma__tabletop_reset(soma_env *env, const soma_env_reset *reset, const char *prompt, double apart, double yaw, soma_rng *rng) {
    soma_rng seeded = soma__rng(reset->seed);
    *rng = soma__rng_fold(&seeded, 0);
    jitter(env, soma__rng_fold(&seeded, 1));
    mj_resetData(env->model, env->data);

    env->goal = (int)soma__rng_below(rng, SOMA_CUBES);
    int other = (env->goal + 1 + (int)soma__rng_below(rng, SOMA_CUBES - 1)) % SOMA_CUBES; // drawn always: the stream does not depend on it
    env->named = reset->wrong_prompt ? other : env->goal;
    snprintf(env->prompt, sizeof env->prompt, prompt, soma__cube_names[env->named]);

    double *q = env->data->qpos;
    soma__arm_reach(env->model, home_tip, 0, q);
    for (int i = 0; i < SOMA_ARM_JOINTS; i++) q[i] += spread(rng, 0.02); // no robot comes home exactly
    for (int i = SOMA_ARM_JOINTS; i < SOMA_ARM_DOFS; i++) q[i] = SOMA_ARM_CLOSED;
    memcpy(env->data->ctrl, q, SOMA_ARM_DOFS * sizeof *q);
    place_cubes(env, rng, apart, yaw);
    env->touched_first = SOMA_CUBE_NONE;
    env->outcome = (soma_env_outcome){0};
}

void soma__tabletop_settle(soma_env *env) {
    mj_forward(env->model, env->data);
    env->ready = true;
}

// ---- observe and step

soma_status soma__tabletop_observe(soma_env *env, soma_env_obs *obs, soma_error *err) {
    SOMA_CHECK(env->ready, "an environment is reset before it is observed");
    if (!env->render) SOMA_TRY(soma__render_open(&env->render, env->model, env->opts.image_width, env->opts.image_height, err));
    *obs = (soma_env_obs){.prompt = env->prompt, .state = env->state};
    soma__arm_state(env->data, env->state);
    for (int i = 0; i < SOMA_TABLETOP_CAMERAS; i++) {
        int camera = mj_name2id(env->model, mjOBJ_CAMERA, soma__tabletop_cameras[i]);
        SOMA_TRY(soma__render_camera(env->render, env->data, camera, env->images[i], err));
        obs->images[i] = env->images[i];
    }
    return SOMA_OK;
}

bool soma__tabletop_touching(const soma_env *env, int cube) {
    const mjModel *m = env->model;
    for (int i = 0; i < env->data->ncon; i++) {
        const mjContact *contact = &env->data->contact[i];
        bool arm = m->geom_contype[contact->geom1] == ARM_CONTYPE || m->geom_contype[contact->geom2] == ARM_CONTYPE;
        bool meets = m->geom_bodyid[contact->geom1] == env->cube_bodies[cube] || m->geom_bodyid[contact->geom2] == env->cube_bodies[cube];
        if (arm && meets && contact->dist <= 0) return true;
    }
    return false;
}

static void note_touch(soma_env *env) {
    if (env->touched_first != SOMA_CUBE_NONE) return;
    for (int c = 0; c < SOMA_CUBES; c++) {
        if (!soma__tabletop_touching(env, c)) continue;
        env->touched_first = env->touched_first == SOMA_CUBE_NONE ? c : SOMA_CUBE_SEVERAL;
    }
}

soma_status soma__tabletop_step(soma_env *env, const float *action, soma_error *err) {
    SOMA_CHECK(env->ready && !env->outcome.done, "an environment is reset before it steps, and again when it is done");
    for (int i = 0; i < SOMA_ARM_ACTIONS; i++) {
        if (!isfinite(action[i])) {
            return soma__fail(err, SOMA_BAD_INPUT, "%s: action %d (%s) is %g at step %d; the robot was not moved", env->task->name, i,
                              soma__arm_names[i], action[i], env->outcome.steps);
        }
    }
    soma__arm_command(env->model, env->data, action);
    for (int i = 0; i < env->substeps; i++) {
        mj_step1(env->model, env->data);
        note_touch(env);
        soma__arm_compensate(env->data);
        mj_step2(env->model, env->data);
    }
    mj_forward(env->model, env->data);
    note_touch(env);
    env->outcome.steps++;
    if (env->data->warning[mjWARN_BADQACC].number || env->data->warning[mjWARN_BADQPOS].number) {
        return soma__fail(err, SOMA_UNSUPPORTED, "%s: the simulation diverged at step %d; reset it", env->task->name, env->outcome.steps);
    }
    return SOMA_OK;
}

const double *soma__tabletop_cube(const soma_env *env, int i) { return env->data->xpos + 3 * env->cube_bodies[i]; }
const double *soma__tabletop_tip(const soma_env *env) { return env->data->site_xpos + 3 * env->tip_site; }

// ---- what the experts share

void soma__tabletop_move(const soma_env *env, const double goal[3], const soma_hand *hand, float *action) {
    const double *tip = soma__tabletop_tip(env);
    double next[3], way[3], q[SOMA_ARM_JOINTS];
    mju_sub3(way, goal, tip);
    double far = mju_norm3(way);
    mju_addScl3(next, tip, way, far > hand->stride ? hand->stride / far : 1);
    soma__arm_reach(env->model, next, hand->roll, q);
    for (int i = 0; i < SOMA_ARM_JOINTS; i++) action[i] = (float)q[i];
    action[SOMA_ARM_GRIPPER] = (float)hand->gripper;
}

void soma__tabletop_descend(const soma_env *env, const double target[3], double high, double low, const soma_hand *hand, float *action) {
    const double *tip = soma__tabletop_tip(env);
    double away = fmin(hypot(target[0] - tip[0], target[1] - tip[1]) / FUNNEL, 1);
    double height = low + (high - low) * away * away * (3 - 2 * away);
    double travel = 1 - fmin(fmax((height - tip[2]) / SUNK, 0), 1);
    double goal[3] = {tip[0] + (target[0] - tip[0]) * travel, tip[1] + (target[1] - tip[1]) * travel, height};
    soma__tabletop_move(env, goal, hand, action);
}

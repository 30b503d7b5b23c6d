// SPDX-License-Identifier: Apache-2.0
// The robots of the released checkpoints, in the words that a user's own robot is told in (docs/robots.md). A name is that of openpi's
// config (facts: training/config.py at 15a9616), or of a robot alone, whose sizes are then the checkpoint's.
#include "policy/robot.h"

#include <string.h>

typedef struct builtin {
    const char *name, *json;
} builtin;

// Held by the state's joints where actions are positions, by zeros where they are velocities or steps; a gripper keeps what it was told, so
// that what it holds does not fall. Joint order of pi's own data: left arm, left gripper, right arm, right gripper; ALOHA turns some joints
// the other way.
static const builtin builtins[] = {
    {"aloha", "{'n_state': 14, 'n_actions': 14, 'rate': 50, 'cameras': ['cam_high', 'cam_left_wrist', 'cam_right_wrist'],"
              " 'cameras_required': ['cam_high'], 'cameras_ignored': ['cam_low'], 'state_keys': ['state'], 'delta': [6, -1, 6, -1],"
              " 'hold': [['state', 6], 'last', ['state', 6], 'last'],"
              " 'convert': [{'state': [1, 2, 8, 9], 'actions': [1, 2, 8, 9], 'scale': -1},"
              "             {'state': [6, 13], 'actions': [6, 13], 'form': 'aloha_gripper'}],"
              " 'asset_id': 'trossen', 'metadata': {'reset_pose': [0, -1.5, 1.5, 0, 0, 0]}}"},
    {"droid", "{'n_state': 8, 'n_actions': 8, 'rate': 15, 'cameras': ['exterior_image_1_left', 'wrist_image_left'],"
              " 'state_keys': ['joint_position', 'gripper_position'], 'delta': [], 'convert': [],"
              " 'hold': [['zero', 7], 'last'], 'asset_id': 'droid'}"},
    {"libero", "{'n_state': 8, 'n_actions': 7, 'rate': 10, 'cameras': ['image', 'wrist_image'], 'state_keys': ['state'],"
               " 'delta': [6, -1], 'convert': [], 'hold': [['zero', 6], 'last'], 'asset_id': 'physical-intelligence/libero'}"},
    {"ur5", "{'n_state': 7, 'n_actions': 7, 'rate': 20, 'cameras': ['base_rgb', 'wrist_rgb'], 'state_keys': ['joints', 'gripper'],"
            " 'delta': [6, -1], 'convert': [], 'hold': [['state', 6], 'last'], 'asset_id': 'ur5e'}"},

    {"pi0_aloha", "{'like': 'aloha', 'model': {'action_horizon': 50, 'max_token_len': 48}}"},
    {"pi0_aloha_towel", "{'like': 'pi0_aloha', 'prompt': 'fold the towel'}"},
    {"pi0_aloha_tupperware", "{'like': 'pi0_aloha', 'prompt': 'open the tupperware and put the food on the plate'}"},
    {"pi0_aloha_pen_uncap", "{'like': 'pi0_aloha', 'prompt': 'uncap the pen'}"},
    {"pi0_aloha_sim", "{'like': 'pi0_aloha', 'prompt': 'Transfer cube', 'delta': [], 'metadata': {},"
                      " 'asset_id': 'lerobot/aloha_sim_transfer_cube_human'}"},
    {"pi05_aloha", "{'like': 'aloha', 'model': {'action_horizon': 50, 'max_token_len': 200}}"},
    {"pi05_aloha_pen_uncap", "{'like': 'pi05_aloha', 'prompt': 'uncap the pen'}"},

    {"pi0_droid", "{'like': 'droid', 'model': {'action_horizon': 10, 'max_token_len': 48}}"},
    {"pi05_droid", "{'like': 'droid', 'model': {'action_horizon': 15, 'max_token_len': 200}}"},
    // one more exterior camera, which the released policy was only ever shown as black, and shown it is
    {"pi0_fast_droid", "{'like': 'droid', 'cameras': ['exterior_image_1_left', null, 'wrist_image_left'], 'absent': 'black',"
                       " 'model': {'action_horizon': 10, 'action_dim': 8, 'max_token_len': 250,"
                       " 'camera_order': ['base_0_rgb', 'base_1_rgb', 'wrist_0_rgb']}}"},
    {"pi05_droid_jointpos",
     "{'like': 'droid', 'delta': [7, -1], 'hold': [['state', 7], 'last'], 'model': {'action_horizon': 15, 'max_token_len': 200}}"},
    {"pi0_fast_droid_jointpos", "{'like': 'pi0_fast_droid', 'delta': [7, -1], 'hold': [['state', 7], 'last'],"
                                " 'model': {'action_horizon': 10, 'action_dim': 8, 'max_token_len': 180,"
                                " 'camera_order': ['base_0_rgb', 'base_1_rgb', 'wrist_0_rgb']}}"},
    {"pi0_droid_jointpos",
     "{'like': 'droid', 'delta': [7, -1], 'hold': [['state', 7], 'last'], 'model': {'action_horizon': 10, 'max_token_len': 100}}"},

    {"pi0_libero", "{'like': 'libero', 'model': {'action_horizon': 50, 'max_token_len': 48}}"},
    // trained without the state and without differences: the prompt has pi0's form
    {"pi05_libero", "{'like': 'libero', 'delta': [], 'prompt_form': 'pi0', 'model': {'action_horizon': 10, 'max_token_len': 200}}"},
    {"pi0_fast_libero", "{'like': 'libero', 'absent': 'black', 'model': {'action_horizon': 10, 'action_dim': 7, 'max_token_len': 180}}"},
    {"pi0_ur5", "{'like': 'ur5', 'model': {'action_horizon': 50, 'max_token_len': 48}}"},
};

json_t *soma__robot_builtin(const char *name) {
    for (size_t i = 0; i < SOMA_COUNT(builtins); i++)
        if (!strcmp(name, builtins[i].name)) {
            char text[1024];
            size_t n = strlen(builtins[i].json);
            SOMA_CHECK(n < sizeof text, "a built-in robot is told in 1023 bytes");
            for (size_t k = 0; k <= n; k++)
                text[k] = builtins[i].json[k] == '\'' ? '"' : builtins[i].json[k]; // quotes as C reads them well
            return json_loads(text, 0, NULL);
        }
    return NULL;
}

const char *soma__robot_builtin_name(size_t i) { return i < SOMA_COUNT(builtins) ? builtins[i].name : NULL; }

// SPDX-License-Identifier: Apache-2.0
// What makes a robot stand still, action by action. It cannot be guessed: a zero holds a joint that is told velocities and moves one that
// is told positions.
#include "policy/robot.h"

#include <string.h>

static const char *const words[] = {"", "state", "zero", "last"}; // in the order of soma_hold

static soma_hold parse(const char *word) {
    soma_hold h = word ? SOMA_HOLD_LAST : SOMA_HOLD_UNKNOWN;
    while (h && strcmp(word, words[h])) h--;
    return h;
}

static soma_status set(soma_robot *r, int *n, soma_hold hold, int64_t times, const char *where, soma_error *err) {
    if (!hold || times < 1)
        return soma__fail(err, SOMA_BAD_INPUT,
                          "%s: \"hold\" is \"state\", \"zero\" or \"last\", or a list of them, or of pairs [\"state\", 6]", where);
    if (times > r->n_actions - *n)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: \"hold\" speaks of more than the %d actions", where, r->n_actions);
    if (hold == SOMA_HOLD_STATE && *n + times > r->n_state)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: \"hold\": action %d is to be the state's number there, and the state has %d", where,
                          r->n_state, r->n_state);
    while (times--) r->hold[(*n)++] = (uint8_t)hold;
    return SOMA_OK;
}

soma_status soma__robot_read_hold(soma_robot *r, const json_t *robot, const char *where, soma_error *err) {
    const json_t *list = json_object_get(robot, "hold"), *entry;
    size_t i;
    int n = 0;
    if (!list) return SOMA_OK;
    if (json_is_string(list)) return set(r, &n, parse(json_string_value(list)), r->n_actions, where, err);
    json_array_foreach(list, i, entry) {
        const bool pair = json_is_array(entry) && json_array_size(entry) == 2;
        const json_t *word = pair ? json_array_get(entry, 0) : entry;
        SOMA_TRY(set(r, &n, parse(json_string_value(word)), pair ? json_integer_value(json_array_get(entry, 1)) : 1, where, err));
    }
    if (n == r->n_actions) return SOMA_OK;
    return soma__fail(err, SOMA_BAD_INPUT, "%s: \"hold\" speaks of %d actions, there are %d", where, n, r->n_actions);
}

json_t *soma__robot_hold_json(const soma_robot *r) {
    json_t *list = json_array();
    for (int i = 0; r->hold[0] && i < r->n_actions; i++) json_array_append_new(list, json_string(words[r->hold[i]]));
    return list;
}

bool soma__robot_hold(const soma_robot *r, const float *state, const float *last, float *action) {
    for (int i = 0; i < r->n_actions; i++) {
        if (r->hold[i] == SOMA_HOLD_UNKNOWN || (r->hold[i] == SOMA_HOLD_LAST && !last)) return false;
        action[i] = r->hold[i] == SOMA_HOLD_STATE ? state[i] : r->hold[i] == SOMA_HOLD_LAST ? last[i] : 0;
    }
    return true;
}

// SPDX-License-Identifier: Apache-2.0
// openpi's PyTorch loop adds in f32 until the time is used up; LeRobot multiplies in Python's f64.
#include "policy/schedule.h"

#include <string.h>

soma_status soma__time_rule(soma_time_rule *rule, const char *name, const json_t *config, soma_error *err) {
    const char *said = *name ? name : json_string_value(json_object_get(config, "time_rule"));
    if (!said) said = json_object_get(config, "type") && !json_object_get(config, "model_type") ? "lerobot" : "openpi";
    *rule = !strcmp(said, "lerobot") ? SOMA_TIME_LEROBOT : SOMA_TIME_OPENPI;
    if (!strcmp(said, "lerobot") || !strcmp(said, "openpi")) return SOMA_OK;
    return soma__fail(err, SOMA_BAD_INPUT, "time rule \"%.20s\": openpi or lerobot are possible", said);
}

void soma__schedule_times(float *times, int64_t steps, soma_time_rule rule) {
    const float dt = -1.0f / (float)steps;
    float t = 1;
    for (int64_t k = 0; k < steps; k++, t += dt) times[k] = rule == SOMA_TIME_OPENPI ? t : (float)(1 + (double)k * (-1.0 / (double)steps));
}

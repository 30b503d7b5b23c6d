// SPDX-License-Identifier: Apache-2.0
// Two robots on one policy, in C++: the weights are shared, each robot has a pilot of its own, and one call moves both.
//
//     act_many CHECKPOINT
#include <soma/soma.h>

#include <cstdio>
#include <memory>
#include <vector>

template <auto close> struct closer {
    template <class T> void operator()(T *p) const { close(p); }
};
using policy_ptr = std::unique_ptr<soma_policy, closer<soma_policy_close>>;
using pilot_ptr = std::unique_ptr<soma_pilot, closer<soma_pilot_free>>;

static int fail(const soma_error &err) {
    std::fprintf(stderr, "act_many: %s\n", err.text);
    return 1;
}

int main(int argc, char **argv) {
    if (argc != 2) {
        std::fprintf(stderr, "usage: act_many CHECKPOINT\n");
        return 2;
    }
    soma_error err{};
    soma_policy *opened = nullptr;
    if (soma_policy_open_json(&opened, argv[1], R"({"dtype": "bf16"})", &err)) return fail(err);
    policy_ptr policy(opened);
    const soma_policy_info info = soma_policy_describe(policy.get());

    const int n = 2, side = 224;
    std::vector<pilot_ptr> pilots;
    std::vector<soma_pilot *> robots;
    std::vector<std::vector<float>> states(n, std::vector<float>(static_cast<size_t>(info.n_state)));
    std::vector<uint8_t> grey(static_cast<size_t>(side) * side * 3, 128);
    std::vector<soma_obs> obs(n);
    for (int i = 0; i < n; i++) {
        soma_pilot *pilot = nullptr;
        soma_pilot_opts opts = soma_pilot_defaults();
        opts.seed = i;
        if (soma_pilot_new(&pilot, policy.get(), &opts, &err)) return fail(err);
        pilots.emplace_back(pilot);
        robots.push_back(pilot);
        obs[i].prompt = i ? "touch the green cube" : "touch the red cube";
        obs[i].state = states[i].data();
        obs[i].n_state = info.n_state;
        obs[i].n_images = info.n_cameras;
        for (int c = 0; c < info.n_cameras; c++) obs[i].images[c] = {info.camera_names[c], grey.data(), side, side};
    }
    std::vector<soma_actions> plans(n);
    if (soma_policy_act_many(policy.get(), n, robots.data(), obs.data(), plans.data(), &err)) return fail(err);
    for (const soma_actions &plan : plans)
        std::printf("%d x %d actions in %.1f ms, the first %.4f\n", plan.horizon, plan.n_actions, plan.model_ms, plan.values[0]);
    return 0;
}

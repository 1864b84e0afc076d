// Runs the kernel's source on the host for the cases on stdin, to be built with sanitizers or with
// racecheck.cpp. Buffers are allocated to the byte; what is computed is not looked at.
//
// A line: t h w kt kh kw dk dv, number of queries, dtype, whether 16 bytes are loaded at once.

#include <cstdint>
#include <cstdio>
#include <memory>
#include <random>

#include "grouped_attention.h"

extern "C" void kernel_on_host(const hicom_edge::GroupedAttentionParams*, int32_t wide,
                               uint32_t seed);

namespace {

// Positive numbers in each of the dtypes.
std::unique_ptr<uint16_t[]> numbers(int64_t halves, std::mt19937& random) {
    std::unique_ptr<uint16_t[]> memory(new uint16_t[halves]);
    for (int64_t i = 0; i < halves; ++i) {
        memory[i] = static_cast<uint16_t>(0x3c00 + random() % 0x0400);
    }
    return memory;
}

}  // namespace

int main() {
    hicom_edge::GroupedAttentionParams p{};
    int32_t wide = 0, cases = 0;
    std::mt19937 random(0);
    while (std::scanf("%d %d %d %d %d %d %d %d %d %d %d", &p.t, &p.h, &p.w, &p.kt, &p.kh, &p.kw,
                      &p.dk, &p.dv, &p.num_queries, &p.dtype, &wide) == 11) {
        const int64_t halves = p.dtype == hicom_edge::kFloat32 ? 2 : 1;
        const int64_t positions = static_cast<int64_t>(p.t) * p.h * p.w;  // no fewer than groups
        const auto query = numbers(halves * p.num_queries * p.dk, random);
        const auto key = numbers(halves * positions * p.dk, random);
        const auto value = numbers(halves * positions * p.dv, random);
        const auto output = numbers(halves * positions * p.dv, random);
        p.query = query.get();
        p.key = key.get();
        p.value = value.get();
        p.output = output.get();
        p.scale = 1.0f / static_cast<float>(p.dk);
        kernel_on_host(&p, wide, static_cast<uint32_t>(cases++));
    }
    std::printf("%d cases\n", cases);
    return 0;
}

// Walks a grid of windows as the kernel's blocks, warps and threads do, on the host.
//
// It shares the kernel's index rule, block plan and online softmax (the headers), and repeats the
// order of its loops: tiles, warps over rows of K, threads over columns of V, slices joined at the
// end. It counts every column that it reads. What it cannot show is what only a GPU has: barriers,
// shuffles, loads.

#include <cstdint>
#include <vector>

#include "block_plan.h"
#include "online_softmax.h"
#include "window_rule.h"

using namespace hicom_edge;

namespace {

struct Problem {
    const float *query, *key, *value;
    float* output;
    int32_t *key_reads, *value_reads;  // (positions, columns)
    int32_t dk, dv, num_queries;
    float scale;
    GridWindows windows;
    BlockPlan plan;
};

template <int N>
float warp_score(const Problem& p, const std::vector<float>& query, int32_t position) {
    float lanes[kWarp] = {};
    for (int lane = 0; lane < kWarp; ++lane) {
        for (int column = lane; column < p.plan.padded_columns; column += kWarp) {
            if (column >= p.plan.key_columns) {
                continue;
            }
            ++p.key_reads[static_cast<int64_t>(position) * p.plan.key_columns + column];
            for (int e = 0; e < N; ++e) {
                const int64_t at = column * N + e;
                lanes[lane] = std::fma(query[at], p.key[static_cast<int64_t>(position) * p.dk + at],
                                       lanes[lane]);
            }
        }
    }
    for (int distance = kWarp / 2; distance > 0; distance /= 2) {
        float sums[kWarp];
        for (int lane = 0; lane < kWarp; ++lane) {
            sums[lane] = lanes[lane] + lanes[lane ^ distance];
        }
        for (int lane = 0; lane < kWarp; ++lane) {
            lanes[lane] = sums[lane];
        }
    }
    return lanes[0];
}

template <int N>
void add_tile(const Problem& p, std::vector<RunningMean<N>>& means, int32_t split,
              const int32_t* positions, const float* scores, int32_t count) {
    float largest = -INFINITY;
    for (int m = 0; m < count; ++m) {
        largest = std::fmax(largest, scores[m]);
    }
    const int32_t columns = p.dv / N;
    for (int thread = 0; thread < p.plan.threads; ++thread) {
        const int32_t slice = thread / p.plan.split_columns;
        const int32_t column = split * p.plan.split_columns + thread % p.plan.split_columns;
        means[thread].raise_largest(largest);
        if (slice >= p.plan.slices || column >= columns) {
            continue;
        }
        for (int m = slice; m < count; m += p.plan.slices) {
            ++p.value_reads[static_cast<int64_t>(positions[m]) * columns + column];
            float v[N];
            for (int e = 0; e < N; ++e) {
                v[e] = p.value[static_cast<int64_t>(positions[m]) * p.dv + column * N + e];
            }
            means[thread].add(scores[m], v);
        }
    }
}

template <int N>
void run_block(const Problem& p, int32_t group, int32_t first_position, int32_t split) {
    std::vector<float> query(p.dk);
    const float* row = p.query + static_cast<int64_t>(p.num_queries == 1 ? 0 : group) * p.dk;
    for (int i = 0; i < p.dk; ++i) {
        query[i] = row[i] * (p.scale * kLog2E);
    }
    std::vector<RunningMean<N>> means(p.plan.threads);
    const int32_t members = p.windows.members();
    for (int32_t first = 0; first < members; first += kTile) {
        const int32_t count = members - first < kTile ? members - first : kTile;
        int32_t positions[kTile];
        float scores[kTile];
        for (int m = 0; m < count; ++m) {
            positions[m] = first_position + p.windows.offset(first + m);
        }
        const int32_t warps = p.plan.threads / kWarp;
        for (int warp = 0; warp < warps; ++warp) {
            for (int m = warp; m < count; m += warps) {
                scores[m] = warp_score<N>(p, query, positions[m]);
            }
        }
        add_tile<N>(p, means, split, positions, scores, count);
    }
    for (int32_t i = 0; i < p.plan.split_columns; ++i) {
        RunningMean<N> mean = means[i];
        for (int slice = 1; slice < p.plan.slices; ++slice) {
            const RunningMean<N>& other = means[slice * p.plan.split_columns + i];
            for (int e = 0; e < N; ++e) {
                mean.columns[e] += other.columns[e];
            }
            mean.weights += other.weights;
        }
        const int32_t column = split * p.plan.split_columns + i;
        if (column < p.dv / N) {
            for (int e = 0; e < N; ++e) {
                p.output[static_cast<int64_t>(group) * p.dv + column * N + e] =
                    mean.columns[e] / mean.weights;
            }
        }
    }
}

template <int N>
void run_grid(const Problem& p) {
    const GridWindows& w = p.windows;
    for (int32_t wt = 0; wt < w.t.count; ++wt) {
        for (int32_t wh = 0; wh < w.h.count; ++wh) {
            for (int32_t x = 0; x < w.w.count * p.plan.splits; ++x) {
                const int32_t ww = x / p.plan.splits;
                run_block<N>(p, w.group(wt, wh, ww), w.first_position(wt, wh, ww),
                             x - ww * p.plan.splits);
            }
        }
    }
}

GridWindows grid_windows(const int32_t* size, const int32_t* kernel) {
    return {axis_windows(size[0], kernel[0]), axis_windows(size[1], kernel[1]),
            axis_windows(size[2], kernel[2])};
}

}  // namespace

extern "C" {

// Returns the number of windows; writes their first indices.
int32_t host_window_starts(int32_t size, int32_t kernel, int32_t* starts) {
    const AxisWindows windows = axis_windows(size, kernel);
    for (int32_t i = 0; i < windows.count; ++i) {
        starts[i] = windows.start(i);
    }
    return windows.count;
}

// Writes the flat positions (groups, members).
void host_group_positions(const int32_t* size, const int32_t* kernel, int32_t* positions) {
    const GridWindows w = grid_windows(size, kernel);
    for (int32_t wt = 0; wt < w.t.count; ++wt) {
        for (int32_t wh = 0; wh < w.h.count; ++wh) {
            for (int32_t ww = 0; ww < w.w.count; ++ww) {
                for (int32_t m = 0; m < w.members(); ++m) {
                    positions[w.group(wt, wh, ww) * w.members() + m] =
                        w.first_position(wt, wh, ww) + w.offset(m);
                }
            }
        }
    }
}

// threads, slices, splits, padded_columns, shared bytes.
void host_block_plan(int32_t dk, int32_t dv, int32_t elements, int32_t* plan) {
    const BlockPlan p = plan_block(dk, dv, elements);
    plan[0] = p.threads;
    plan[1] = p.slices;
    plan[2] = p.splits;
    plan[3] = p.padded_columns;
    plan[4] = static_cast<int32_t>(p.shared_bytes);
}

// The mean of values weighted by softmax(scores), taken tile by tile; scores in base 2.
float host_online_mean(const float* scores, const float* values, int32_t count, int32_t tile) {
    RunningMean<1> mean;
    for (int32_t first = 0; first < count; first += tile) {
        const int32_t end = first + tile < count ? first + tile : count;
        float largest = -INFINITY;
        for (int32_t m = first; m < end; ++m) {
            largest = std::fmax(largest, scores[m]);
        }
        mean.raise_largest(largest);
        for (int32_t m = first; m < end; ++m) {
            const float v[1] = {values[m]};
            mean.add(scores[m], v);
        }
    }
    return mean.columns[0] / mean.weights;
}

void host_grouped_attention(const float* query, const float* key, const float* value, float* output,
                            int32_t* key_reads, int32_t* value_reads, const int32_t* size,
                            const int32_t* kernel, int32_t dk, int32_t dv, int32_t elements,
                            int32_t num_queries, float scale) {
    const Problem p{query,
                    key,
                    value,
                    output,
                    key_reads,
                    value_reads,
                    dk,
                    dv,
                    num_queries,
                    scale,
                    grid_windows(size, kernel),
                    plan_block(dk, dv, elements)};
    switch (elements) {
        case 1: return run_grid<1>(p);
        case 4: return run_grid<4>(p);
        default: return run_grid<8>(p);
    }
}
}

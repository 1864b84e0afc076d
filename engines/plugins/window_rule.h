// Division of a grid of (t, h, w) positions into windows, axis by axis, as in model/windows.py.
#pragma once

#include <cstdint>

#include "host_device.h"

namespace hicom_edge {

HICOM_EDGE_HOST_DEVICE int32_t ceil_div(int32_t size, int32_t divisor) {
    return (size + divisor - 1) / divisor;
}

// Windows of one axis. Computed on the host, so that a block starts without divisions.
struct AxisWindows {
    int32_t size, kernel;
    int32_t count, width;
    int32_t missing;  // elements that a tiling would lack in its last window

    // First index of window i.
    HICOM_EDGE_HOST_DEVICE int32_t start(int32_t i) const {
        if (count == 1) {
            return 0;
        }
        if (missing < count) {  // each of the last `missing` windows starts one element earlier
            const int32_t early = i - (count - missing) + 1;
            return i * kernel - (early > 0 ? early : 0);
        }
        // Evenly spread starts, rounded down; on very long axes the product exceeds 2^31.
        return static_cast<int32_t>(static_cast<int64_t>(i) * (size - kernel) / (count - 1));
    }
};

HICOM_EDGE_HOST_DEVICE AxisWindows axis_windows(int32_t size, int32_t kernel) {
    const int32_t count = ceil_div(size, kernel);
    return {size, kernel, count, size < kernel ? size : kernel, count * kernel - size};
}

// Windows of a grid. Groups, and the members of a group, are counted in (t, h, w) order.
struct GridWindows {
    AxisWindows t, h, w;

    HICOM_EDGE_HOST_DEVICE int32_t groups() const { return t.count * h.count * w.count; }

    HICOM_EDGE_HOST_DEVICE int32_t members() const { return t.width * h.width * w.width; }

    HICOM_EDGE_HOST_DEVICE int32_t group(int32_t wt, int32_t wh, int32_t ww) const {
        return (wt * h.count + wh) * w.count + ww;
    }

    // Flat position in the grid of the first member of the group of windows (wt, wh, ww).
    HICOM_EDGE_HOST_DEVICE int32_t first_position(int32_t wt, int32_t wh, int32_t ww) const {
        return (t.start(wt) * h.size + h.start(wh)) * w.size + w.start(ww);
    }

    // Distance of member m from the first member, which is the same in every group.
    HICOM_EDGE_HOST_DEVICE int32_t offset(int32_t m) const {
        const int32_t row = m / w.width, frame = row / h.width;
        return (frame * h.size + row - frame * h.width) * w.size + m - row * w.width;
    }
};

}  // namespace hicom_edge

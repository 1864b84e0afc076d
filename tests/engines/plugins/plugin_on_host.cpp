// Calls the plugin class as TensorRT does, with a launch that only notes what it is asked.
//
// Prints a line for each promise of the interface that does not hold.

#include <cstdio>
#include <memory>

#include "grouped_attention.h"
#include "grouped_attention_plugin.h"
#include "window_rule.h"

using namespace hicom_edge;
using nvinfer1::DataType;
using nvinfer1::Dims;
using nvinfer1::PluginTensorDesc;

namespace hicom_edge {

GroupedAttentionParams launched{};
std::string logged;

cudaError_t launch_grouped_attention(const GroupedAttentionParams& params, cudaStream_t) {
    launched = params;
    return cudaSuccess;
}

int32_t groups_of(const GroupedAttentionParams& p) {
    const bool empty = p.t < 1 || p.h < 1 || p.w < 1 || p.dk < 1 || p.dv < 1;
    return empty ? 0 : ceil_div(p.t, p.kt) * ceil_div(p.h, p.kh) * ceil_div(p.w, p.kw);
}

void log_error(const std::string& line) noexcept { logged = line; }

}  // namespace hicom_edge

extern "C" const char* cudaGetErrorString(cudaError_t) { return ""; }

namespace {

int32_t broken = 0;

void expect(bool holds, const char* promise) {
    if (!holds) {
        std::printf("%s\n", promise);
        ++broken;
    }
}

struct Inputs {
    PluginTensorDesc tensors[3]{};

    Inputs(int64_t queries, int64_t frames, DataType type = DataType::kHALF) {
        tensors[0].dims = Dims{2, {queries, 64}};
        tensors[1].dims = Dims{4, {frames, 6, 6, 64}};
        tensors[2].dims = Dims{4, {frames, 6, 6, 32}};
        for (PluginTensorDesc& tensor : tensors) {
            tensor.type = type;
            tensor.format = nvinfer1::TensorFormat::kLINEAR;
        }
    }
};

bool takes(GroupedAttentionPlugin& plugin, const Inputs& inputs) {
    logged.clear();
    const PluginTensorDesc output{};
    return plugin.onShapeChange(inputs.tensors, 3, &output, 1) == 0;
}

void shapes(GroupedAttentionPlugin& plugin) {
    expect(takes(plugin, {1, 4}), "one query for all groups is taken");
    expect(takes(plugin, {8, 5}), "a query for each group is taken");
    expect(!takes(plugin, {7, 5}) && !logged.empty(), "other numbers of queries are refused");
    expect(!takes(plugin, {1, 0}) && !logged.empty(), "no frames are refused");
    expect(!takes(plugin, {1, int64_t{1} << 32}), "sizes beyond 32 bits are refused");
    expect(!takes(plugin, {1, 4, DataType::kINT8}), "other dtypes are refused");
    expect(logged.find("(1, 64)") != std::string::npos, "a refusal names the shapes");
}

void launches(GroupedAttentionPlugin& plugin) {
    const Inputs inputs(8, 5, DataType::kBF16);
    char buffers[4];
    const void* in[] = {buffers, buffers + 1, buffers + 2};
    void* out[] = {buffers + 3};
    const PluginTensorDesc output{};
    expect(plugin.enqueue(inputs.tensors, &output, in, out, nullptr, nullptr) == 0, "it launches");
    expect(launched.query == in[0] && launched.key == in[1] && launched.value == in[2] &&
               launched.output == out[0],
           "buffers are passed in their order");
    expect(launched.t == 5 && launched.dk == 64 && launched.dv == 32 && launched.kt == 4 &&
               launched.kh == 3 && launched.num_queries == 8 && launched.dtype == kBfloat16 &&
               launched.scale == 0.5f,
           "sizes and attributes are passed");
}

void formats(GroupedAttentionPlugin& plugin) {
    nvinfer1::DynamicPluginTensorDesc tensors[4]{};
    for (auto& tensor : tensors) {
        tensor.desc.type = DataType::kHALF;
        tensor.desc.format = nvinfer1::TensorFormat::kLINEAR;
    }
    expect(plugin.supportsFormatCombination(3, tensors, 3, 1), "linear fp16 is taken");
    tensors[3].desc.type = DataType::kFLOAT;
    expect(!plugin.supportsFormatCombination(3, tensors, 3, 1), "mixed dtypes are refused");
    tensors[3].desc.type = DataType::kHALF;
    tensors[3].desc.format = nvinfer1::TensorFormat::kCHW2;
    expect(!plugin.supportsFormatCombination(3, tensors, 3, 1), "other formats are refused");
    expect(plugin.configurePlugin(tensors, 2, tensors, 1) != 0, "two inputs are refused");
}

}  // namespace

int main() {
    GroupedAttentionCreator creator;
    auto original = std::make_unique<GroupedAttentionPlugin>(
        GroupedAttentionFields{{4, 3, 3}, 0.5f});
    const std::unique_ptr<nvinfer1::IPluginV3> attached(original->attachToContext(nullptr));
    const std::unique_ptr<nvinfer1::IPluginV3> read(creator.createPlugin(
        "node", original->getFieldsToSerialize(), nvinfer1::TensorRTPhase::kRUNTIME));
    original.reset();  // neither may need it any more
    for (nvinfer1::IPluginV3* plugin : {attached.get(), read.get()}) {
        auto& taken = static_cast<GroupedAttentionPlugin&>(*plugin);
        expect(taken.getFieldsToSerialize()->nbFields == 2, "fields are kept");
        expect(taken.getWorkspaceSize(nullptr, 3, nullptr, 1) == 0, "no workspace is asked for");
        shapes(taken);
        launches(taken);
        formats(taken);
    }
    expect(creator.createPlugin("node", nullptr, nvinfer1::TensorRTPhase::kBUILD) == nullptr,
           "no fields make no plugin");
    return broken;
}

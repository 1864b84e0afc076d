#include "grouped_attention_plugin.h"

#include <algorithm>
#include <exception>
#include <limits>
#include <optional>
#include <sstream>

#include "grouped_attention.h"
#include "window_rule.h"

namespace hicom_edge {
namespace {

using nvinfer1::DataType;
using nvinfer1::DimensionOperation;
using nvinfer1::PluginField;
using nvinfer1::PluginFieldType;

constexpr const char* kName = "GroupedAttention";
constexpr const char* kVersion = "1";
constexpr const char* kNamespace = "hicom.edge";
constexpr const char* kKernelField = "kernel";
constexpr const char* kScaleField = "scale";

enum Input : int32_t { kQuery, kKey, kValue, kNumInputs };

std::optional<GroupedAttentionDtype> dtype_of(DataType type) {
    switch (type) {
        case DataType::kFLOAT: return kFloat32;
        case DataType::kHALF: return kFloat16;
        case DataType::kBF16: return kBfloat16;
        default: return std::nullopt;
    }
}

// Converts TensorRT's 64-bit sizes to the kernel's 32 bits. A size that does not fit becomes 0,
// which is refused.
int32_t size_of(const nvinfer1::Dims& dims, int32_t axis) {
    const int64_t size = dims.d[axis];
    return size <= std::numeric_limits<int32_t>::max() ? static_cast<int32_t>(size) : 0;
}

// Empty if ranks or channels do not match.
std::optional<GroupedAttentionParams> params_of(const nvinfer1::PluginTensorDesc* inputs,
                                                const GroupedAttentionFields& fields) {
    const nvinfer1::Dims &query = inputs[kQuery].dims, &key = inputs[kKey].dims,
                         &value = inputs[kValue].dims;
    const bool ranks = query.nbDims == 2 && key.nbDims == 4 && value.nbDims == 4;
    if (!ranks || query.d[1] != key.d[3] || !std::equal(key.d, key.d + 3, value.d)) {
        return std::nullopt;
    }
    const auto dtype = dtype_of(inputs[kKey].type);
    if (!dtype) {
        return std::nullopt;
    }
    GroupedAttentionParams params{};
    params.t = size_of(key, 0);
    params.h = size_of(key, 1);
    params.w = size_of(key, 2);
    params.dk = size_of(key, 3);
    params.dv = size_of(value, 3);
    params.kt = fields.kernel[0];
    params.kh = fields.kernel[1];
    params.kw = fields.kernel[2];
    params.num_queries = size_of(query, 0);
    params.dtype = *dtype;
    params.scale = fields.scale;
    return params;
}

std::string described(const GroupedAttentionFields& fields) {
    std::ostringstream text;
    text << "kernel=" << fields.kernel[0] << 'x' << fields.kernel[1] << 'x' << fields.kernel[2]
         << " scale=" << fields.scale;
    return text.str();
}

std::string shape_of(const nvinfer1::Dims& dims) {
    std::ostringstream text;
    for (int32_t i = 0; i < dims.nbDims; ++i) {
        text << (i == 0 ? "(" : ", ") << dims.d[i];
    }
    text << ')';
    return text.str();
}

// Reads the fields of a node or of a serialised plugin, which are the same.
std::optional<GroupedAttentionFields> fields_from(
    const nvinfer1::PluginFieldCollection& collection) {
    GroupedAttentionFields fields;
    bool has_kernel = false, has_scale = false;
    for (int32_t i = 0; i < collection.nbFields; ++i) {
        const PluginField& field = collection.fields[i];
        const std::string name = field.name;
        if (name == kKernelField && field.type == PluginFieldType::kINT32 && field.length == 3) {
            const auto* sizes = static_cast<const int32_t*>(field.data);
            std::copy(sizes, sizes + 3, fields.kernel.begin());
            has_kernel = std::all_of(sizes, sizes + 3, [](int32_t size) { return size > 0; });
        } else if (name == kScaleField && field.type == PluginFieldType::kFLOAT32 &&
                   field.length == 1) {
            fields.scale = *static_cast<const float*>(field.data);
            has_scale = true;
        }
    }
    return has_kernel && has_scale ? std::optional(fields) : std::nullopt;
}

}  // namespace

GroupedAttentionPlugin::GroupedAttentionPlugin(const GroupedAttentionFields& fields)
    : fields_(fields),
      description_(described(fields)),
      field_list_{PluginField{kKernelField, fields_.kernel.data(), PluginFieldType::kINT32, 3},
                  PluginField{kScaleField, &fields_.scale, PluginFieldType::kFLOAT32, 1}} {
    serialized_.nbFields = static_cast<int32_t>(field_list_.size());
    serialized_.fields = field_list_.data();
}

nvinfer1::IPluginCapability* GroupedAttentionPlugin::getCapabilityInterface(
    nvinfer1::PluginCapabilityType type) noexcept {
    switch (type) {
        case nvinfer1::PluginCapabilityType::kCORE:
            return static_cast<nvinfer1::IPluginV3OneCore*>(this);
        case nvinfer1::PluginCapabilityType::kBUILD:
            return static_cast<nvinfer1::IPluginV3OneBuild*>(this);
        case nvinfer1::PluginCapabilityType::kRUNTIME:
            return static_cast<nvinfer1::IPluginV3OneRuntime*>(this);
        default: return nullptr;
    }
}

GroupedAttentionPlugin* GroupedAttentionPlugin::clone() noexcept {
    try {
        return new GroupedAttentionPlugin(fields_);
    } catch (const std::exception& error) {
        log_error(std::string("GroupedAttention: cannot be cloned: ") + error.what());
        return nullptr;
    }
}

const char* GroupedAttentionPlugin::getPluginName() const noexcept { return kName; }
const char* GroupedAttentionPlugin::getPluginVersion() const noexcept { return kVersion; }
const char* GroupedAttentionPlugin::getPluginNamespace() const noexcept { return kNamespace; }

int32_t GroupedAttentionPlugin::configurePlugin(const nvinfer1::DynamicPluginTensorDesc*,
                                                int32_t num_inputs,
                                                const nvinfer1::DynamicPluginTensorDesc*,
                                                int32_t num_outputs) noexcept {
    return num_inputs == kNumInputs && num_outputs == 1 ? 0 : -1;
}

int32_t GroupedAttentionPlugin::getOutputDataTypes(DataType* outputs, int32_t num_outputs,
                                                   const DataType* inputs,
                                                   int32_t num_inputs) const noexcept {
    if (num_inputs != kNumInputs || num_outputs != 1) {
        return -1;
    }
    outputs[0] = inputs[kValue];
    return 0;
}

int32_t GroupedAttentionPlugin::getOutputShapes(const nvinfer1::DimsExprs* inputs,
                                                int32_t num_inputs, const nvinfer1::DimsExprs*,
                                                int32_t, nvinfer1::DimsExprs* outputs,
                                                int32_t num_outputs,
                                                nvinfer1::IExprBuilder& expressions) noexcept {
    if (num_inputs != kNumInputs || num_outputs != 1 || inputs[kKey].nbDims != 4 ||
        inputs[kValue].nbDims != 4) {
        log_error(
            "GroupedAttention: expected query (n, dk), key (t, h, w, dk) and value (t, h, w, dv)");
        return -1;
    }
    const nvinfer1::IDimensionExpr* groups = expressions.constant(1);
    for (size_t axis = 0; axis < fields_.kernel.size(); ++axis) {
        const auto* windows =
            expressions.operation(DimensionOperation::kCEIL_DIV, *inputs[kKey].d[axis],
                                  *expressions.constant(fields_.kernel[axis]));
        groups = expressions.operation(DimensionOperation::kPROD, *groups, *windows);
    }
    outputs[0].nbDims = 2;
    outputs[0].d[0] = groups;
    outputs[0].d[1] = inputs[kValue].d[3];
    return 0;
}

bool GroupedAttentionPlugin::supportsFormatCombination(
    int32_t position, const nvinfer1::DynamicPluginTensorDesc* tensors, int32_t, int32_t) noexcept {
    const nvinfer1::PluginTensorDesc& tensor = tensors[position].desc;
    return tensor.format == nvinfer1::TensorFormat::kLINEAR && dtype_of(tensor.type).has_value() &&
           tensor.type == tensors[0].desc.type;
}

int32_t GroupedAttentionPlugin::getNbOutputs() const noexcept { return 1; }

const char* GroupedAttentionPlugin::getTimingCacheID() noexcept { return description_.c_str(); }

const char* GroupedAttentionPlugin::getMetadataString() noexcept { return description_.c_str(); }

int32_t GroupedAttentionPlugin::onShapeChange(const nvinfer1::PluginTensorDesc* inputs,
                                              int32_t num_inputs, const nvinfer1::PluginTensorDesc*,
                                              int32_t) noexcept {
    const auto params = num_inputs == kNumInputs ? params_of(inputs, fields_) : std::nullopt;
    const int32_t groups = params ? groups_of(*params) : 0;  // 0: empty, or too large to count
    if (groups > 0 && (params->num_queries == 1 || params->num_queries == groups)) {
        return 0;
    }
    log_error("GroupedAttention: query " + shape_of(inputs[kQuery].dims) + ", key " +
              shape_of(inputs[kKey].dims) + " and value " + shape_of(inputs[kValue].dims) +
              " do not fit " + description_);
    return -1;
}

int32_t GroupedAttentionPlugin::enqueue(const nvinfer1::PluginTensorDesc* inputs,
                                        const nvinfer1::PluginTensorDesc*,
                                        const void* const* input_buffers,
                                        void* const* output_buffers, void*,
                                        cudaStream_t stream) noexcept {
    auto params = params_of(inputs, fields_);
    if (!params) {
        return -1;
    }
    params->query = input_buffers[kQuery];
    params->key = input_buffers[kKey];
    params->value = input_buffers[kValue];
    params->output = output_buffers[0];
    const cudaError_t status = launch_grouped_attention(*params, stream);
    if (status != cudaSuccess) {
        log_error(std::string("GroupedAttention: the kernel was not launched: ") +
                  cudaGetErrorString(status));
    }
    return status == cudaSuccess ? 0 : -1;
}

nvinfer1::IPluginV3* GroupedAttentionPlugin::attachToContext(
    nvinfer1::IPluginResourceContext*) noexcept {
    return clone();
}

const nvinfer1::PluginFieldCollection* GroupedAttentionPlugin::getFieldsToSerialize() noexcept {
    return &serialized_;
}

GroupedAttentionCreator::GroupedAttentionCreator()
    : field_list_{PluginField{kKernelField, nullptr, PluginFieldType::kINT32, 3},
                  PluginField{kScaleField, nullptr, PluginFieldType::kFLOAT32, 1}} {
    names_.nbFields = static_cast<int32_t>(field_list_.size());
    names_.fields = field_list_.data();
}

nvinfer1::IPluginV3* GroupedAttentionCreator::createPlugin(
    const char* name, const nvinfer1::PluginFieldCollection* collection,
    nvinfer1::TensorRTPhase) noexcept {
    try {
        const auto fields = collection == nullptr ? std::nullopt : fields_from(*collection);
        if (fields) {
            return new GroupedAttentionPlugin(*fields);
        }
        log_error(
            std::string("GroupedAttention ") + (name == nullptr ? "" : name) +
            ": expected the attributes kernel (three positive integers) and scale (one float)");
    } catch (const std::exception& error) {
        log_error(std::string("GroupedAttention: cannot be created: ") + error.what());
    }
    return nullptr;
}

const nvinfer1::PluginFieldCollection* GroupedAttentionCreator::getFieldNames() noexcept {
    return &names_;
}
const char* GroupedAttentionCreator::getPluginName() const noexcept { return kName; }
const char* GroupedAttentionCreator::getPluginVersion() const noexcept { return kVersion; }
const char* GroupedAttentionCreator::getPluginNamespace() const noexcept { return kNamespace; }

}  // namespace hicom_edge

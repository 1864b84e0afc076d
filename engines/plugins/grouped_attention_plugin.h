// The TensorRT plugin for the ONNX node hicom.edge::GroupedAttention, and its creator.
//
// Inputs query (1 or groups, dk), key (t, h, w, dk), value (t, h, w, dv); output (groups, dv), as
// in export/grouped_attention.py. The plugin has no state on the device, so execution contexts
// share nothing.
#pragma once

#include <NvInfer.h>

#include <array>
#include <cstdint>
#include <string>

#if !defined(TRT_MAJOR_RTX) && NV_TENSORRT_MAJOR < 10
#error "hicom-edge's plugin needs TensorRT 10 or newer (IPluginV3), or TensorRT-RTX"
#endif

namespace hicom_edge {

// Attributes of the node.
struct GroupedAttentionFields {
    std::array<int32_t, 3> kernel{};  // kt, kh, kw
    float scale = 0.0f;
};

class GroupedAttentionPlugin final : public nvinfer1::IPluginV3,
                                     public nvinfer1::IPluginV3OneCore,
                                     public nvinfer1::IPluginV3OneBuild,
                                     public nvinfer1::IPluginV3OneRuntime {
   public:
    explicit GroupedAttentionPlugin(const GroupedAttentionFields& fields);
    // `serialized_` points into the object itself.
    GroupedAttentionPlugin(const GroupedAttentionPlugin&) = delete;
    GroupedAttentionPlugin& operator=(const GroupedAttentionPlugin&) = delete;

    nvinfer1::IPluginCapability* getCapabilityInterface(
        nvinfer1::PluginCapabilityType type) noexcept override;
    GroupedAttentionPlugin* clone() noexcept override;

    const char* getPluginName() const noexcept override;
    const char* getPluginVersion() const noexcept override;
    const char* getPluginNamespace() const noexcept override;

    int32_t configurePlugin(const nvinfer1::DynamicPluginTensorDesc* inputs, int32_t num_inputs,
                            const nvinfer1::DynamicPluginTensorDesc* outputs,
                            int32_t num_outputs) noexcept override;
    int32_t getOutputDataTypes(nvinfer1::DataType* outputs, int32_t num_outputs,
                               const nvinfer1::DataType* inputs,
                               int32_t num_inputs) const noexcept override;
    int32_t getOutputShapes(const nvinfer1::DimsExprs* inputs, int32_t num_inputs,
                            const nvinfer1::DimsExprs* shape_inputs, int32_t num_shape_inputs,
                            nvinfer1::DimsExprs* outputs, int32_t num_outputs,
                            nvinfer1::IExprBuilder& expressions) noexcept override;
    bool supportsFormatCombination(int32_t position,
                                   const nvinfer1::DynamicPluginTensorDesc* tensors,
                                   int32_t num_inputs, int32_t num_outputs) noexcept override;
    int32_t getNbOutputs() const noexcept override;
    const char* getTimingCacheID() noexcept override;
    const char* getMetadataString() noexcept override;

    int32_t onShapeChange(const nvinfer1::PluginTensorDesc* inputs, int32_t num_inputs,
                          const nvinfer1::PluginTensorDesc* outputs,
                          int32_t num_outputs) noexcept override;
    int32_t enqueue(const nvinfer1::PluginTensorDesc* inputs,
                    const nvinfer1::PluginTensorDesc* outputs, const void* const* input_buffers,
                    void* const* output_buffers, void* workspace,
                    cudaStream_t stream) noexcept override;
    nvinfer1::IPluginV3* attachToContext(
        nvinfer1::IPluginResourceContext* context) noexcept override;
    const nvinfer1::PluginFieldCollection* getFieldsToSerialize() noexcept override;

   private:
    GroupedAttentionFields fields_;
    std::string description_;
    std::array<nvinfer1::PluginField, 2> field_list_;
    nvinfer1::PluginFieldCollection serialized_{};
};

class GroupedAttentionCreator final : public nvinfer1::IPluginCreatorV3One {
   public:
    GroupedAttentionCreator();

    // Returns null and logs a line if a field is missing or out of range.
    nvinfer1::IPluginV3* createPlugin(const char* name,
                                      const nvinfer1::PluginFieldCollection* fields,
                                      nvinfer1::TensorRTPhase phase) noexcept override;
    const nvinfer1::PluginFieldCollection* getFieldNames() noexcept override;
    const char* getPluginName() const noexcept override;
    const char* getPluginVersion() const noexcept override;
    const char* getPluginNamespace() const noexcept override;

   private:
    std::array<nvinfer1::PluginField, 2> field_list_;
    nvinfer1::PluginFieldCollection names_{};
};

// Writes one line to TensorRT's logger, if it has been set.
void log_error(const std::string& line) noexcept;

}  // namespace hicom_edge

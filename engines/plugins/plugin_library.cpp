// The functions that TensorRT calls in a plugin library: its creators, and a setter for the logger.

#include "grouped_attention_plugin.h"

#define HICOM_EDGE_EXPORT extern "C" __attribute__((visibility("default")))

namespace {

nvinfer1::ILoggerFinder* logger_finder = nullptr;

}  // namespace

namespace hicom_edge {

void log_error(const std::string& line) noexcept {
    nvinfer1::ILogger* logger = logger_finder == nullptr ? nullptr : logger_finder->findLogger();
    if (logger != nullptr) {
        logger->log(nvinfer1::ILogger::Severity::kERROR, line.c_str());
    }
}

}  // namespace hicom_edge

HICOM_EDGE_EXPORT void setLoggerFinder(nvinfer1::ILoggerFinder* finder) { logger_finder = finder; }

HICOM_EDGE_EXPORT nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count) {
    static hicom_edge::GroupedAttentionCreator grouped_attention;
    static nvinfer1::IPluginCreatorInterface* const creators[] = {&grouped_attention};
    count = 1;
    return creators;
}

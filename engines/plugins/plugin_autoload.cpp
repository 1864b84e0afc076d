// For tools that only open a plugin library (Polygraphy's --plugins, trtexec's --staticPlugins):
// when it is opened, this library makes TensorRT load the plugin library beside it.
//
// It is a library of its own because TensorRT refuses a plugin library that registers itself.

#include <NvInfer.h>
#include <dlfcn.h>

#include <cstdio>
#include <string>
#include <vector>

namespace {

constexpr const char* kPlugins = "libhicom_edge_plugins.so";

// The TensorRT library of these headers, and others with the same plugin registry.
#ifdef TRT_MAJOR_RTX
const std::vector<std::string> kLibraries = {"libtensorrt_rtx.so." + std::to_string(TRT_MAJOR_RTX)};
#elif NV_TENSORRT_MAJOR < 11
const std::vector<std::string> kLibraries = {"libnvinfer.so." + std::to_string(NV_TENSORRT_MAJOR)};
#else  // TensorRT-RTX 1.7 has the registry of TensorRT 11, and would crash with that of 10
const std::vector<std::string> kLibraries = {"libnvinfer.so." + std::to_string(NV_TENSORRT_MAJOR),
                                             "libtensorrt_rtx.so.1"};
#endif

// A library that the process has loaded already; else, because Polygraphy opens plugins first, one
// on the search path.
nvinfer1::IPluginRegistry* find_registry() {
    using GetRegistry = nvinfer1::IPluginRegistry* (*)() noexcept;
    for (const int mode : {RTLD_NOW | RTLD_NOLOAD, RTLD_NOW}) {
        for (const std::string& name : kLibraries) {
            void* library = dlopen(name.c_str(), mode);
            void* symbol = library == nullptr ? nullptr : dlsym(library, "getPluginRegistry");
            if (symbol != nullptr) {
                return reinterpret_cast<GetRegistry>(symbol)();
            }
        }
    }
    return nullptr;
}

std::string plugins_path() {
    Dl_info here{};
    if (dladdr(reinterpret_cast<const void*>(&plugins_path), &here) == 0) {
        return kPlugins;
    }
    const std::string path = here.dli_fname;
    return path.substr(0, path.rfind('/') + 1) + kPlugins;
}

// An object, so that it is constructed after the names above.
const struct Loading {
    Loading() {
        nvinfer1::IPluginRegistry* registry = find_registry();
        const std::string path = plugins_path();
        if (registry == nullptr) {
            std::fprintf(stderr,
                         "hicom-edge: %s was not registered, because %s was not found; %s\n",
                         path.c_str(), kLibraries.front().c_str(), "name its directory in LD_LIBRARY_PATH");
        } else if (registry->loadLibrary(path.c_str()) == nullptr) {
            std::fprintf(stderr, "hicom-edge: TensorRT did not take %s\n", path.c_str());
        }
    }
} loading;

}  // namespace

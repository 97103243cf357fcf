// Makes SharedArrayBuffers over memory of a region, or of this process.
#ifndef PAGEMESH_BINDING_SHARED_BUFFER_H_
#define PAGEMESH_BINDING_SHARED_BUFFER_H_

#include <napi.h>

#include "memory/region.h"

namespace pagemesh {

// Which memory of a region JavaScript sees.
enum class RegionPart : uint32_t {
  kApplication = 0,  // the pages, protected: what users get
  kStates = 1,       // one byte a page: the engine's
  kDirectory = 2,    // eight bytes a page homed here: the engine's
};

// Returns a SharedArrayBuffer that keeps the region mapped while it lives, where Node-API has a
// function for that (Node.js 22.23.3, 24.16, 26.1). Elsewhere returns a BigUint64Array of four:
// address, byte length, and a release function with its argument, from which the small V8 addon
// (v8_shared_buffer.cc) makes one.
// `application_bytes` is how much of the pages users asked for, at most the region's length.
Napi::Value MakeSharedBuffer(Napi::Env env, Region* region, RegionPart part,
                             size_t application_bytes);
// The same over memory that stays for good.
Napi::Value MakeLastingBuffer(Napi::Env env, void* data, size_t length);

}  // namespace pagemesh

#endif  // PAGEMESH_BINDING_SHARED_BUFFER_H_

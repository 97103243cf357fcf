// Reading arguments and throwing errors, for the exported functions.
#ifndef PAGEMESH_BINDING_ARGUMENTS_H_
#define PAGEMESH_BINDING_ARGUMENTS_H_

#include <napi.h>

#include "binding/session.h"

namespace pagemesh {

// Throws an Error with `errno` and `syscall`, and returns undefined.
Napi::Value ThrowErrno(Napi::Env env, const char* what, int error);

// The session that argument 0 names; throws and returns nullptr if there is none.
Session* SessionArgument(const Napi::CallbackInfo& info);

// The session's region that argument 1 names; throws and returns nullptr if there is none.
Region* RegionArgument(const Napi::CallbackInfo& info, Session* session);

// A number as 32 bits; 0 for anything else.
uint32_t Uint32Argument(const Napi::CallbackInfo& info, size_t index);
int32_t Int32Argument(const Napi::CallbackInfo& info, size_t index);
// A BigInt as 64 bits, two's complement; 0 for anything else.
uint64_t Uint64Argument(const Napi::CallbackInfo& info, size_t index);

}  // namespace pagemesh

#endif  // PAGEMESH_BINDING_ARGUMENTS_H_

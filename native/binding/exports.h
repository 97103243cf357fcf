// The functions that TypeScript calls. Meaning (ranges, names, alignment) is checked there; here
// kinds and liveness are checked, and errors are thrown with errno in `errno`.
#ifndef PAGEMESH_BINDING_EXPORTS_H_
#define PAGEMESH_BINDING_EXPORTS_H_

#include <napi.h>

namespace pagemesh {

// exports_session.cc
Napi::Value SessionCreate(const Napi::CallbackInfo& info);
Napi::Value SessionDestroy(const Napi::CallbackInfo& info);
Napi::Value Stop(const Napi::CallbackInfo& info);
Napi::Value Wake(const Napi::CallbackInfo& info);
Napi::Value AwaitToken(const Napi::CallbackInfo& info);
Napi::Value PassToken(const Napi::CallbackInfo& info);
Napi::Value SetView(const Napi::CallbackInfo& info);
Napi::Value Exchange(const Napi::CallbackInfo& info);
Napi::Value Listen(const Napi::CallbackInfo& info);
Napi::Value Connect(const Napi::CallbackInfo& info);
Napi::Value BindRank(const Napi::CallbackInfo& info);
Napi::Value CloseConnection(const Napi::CallbackInfo& info);
Napi::Value OpenLinks(const Napi::CallbackInfo& info);
Napi::Value Link(const Napi::CallbackInfo& info);
Napi::Value LinkRecords(const Napi::CallbackInfo& info);
Napi::Value Die(const Napi::CallbackInfo& info);

// exports_barrier.cc
Napi::Value BarrierWordsBuffer(const Napi::CallbackInfo& info);
Napi::Value TellArrivalAt(const Napi::CallbackInfo& info);
Napi::Value WaitAtBarrier(const Napi::CallbackInfo& info);
Napi::Value RingProgram(const Napi::CallbackInfo& info);

// exports_region.cc
Napi::Value MapRegion(const Napi::CallbackInfo& info);
Napi::Value MapWords(const Napi::CallbackInfo& info);
Napi::Value UnmapRegion(const Napi::CallbackInfo& info);
Napi::Value RegionBuffer(const Napi::CallbackInfo& info);
Napi::Value RegionStatsOf(const Napi::CallbackInfo& info);
Napi::Value HomeOf(const Napi::CallbackInfo& info);
Napi::Value Atomic(const Napi::CallbackInfo& info);
Napi::Value CountWaitersOf(const Napi::CallbackInfo& info);

// exports_machine.cc
Napi::Value Probe(const Napi::CallbackInfo& info);
Napi::Value RdmaDevices(const Napi::CallbackInfo& info);
#ifdef PAGEMESH_STAMPS
Napi::Value Stamps(const Napi::CallbackInfo& info);
#endif
Napi::Object Constants(Napi::Env env);

}  // namespace pagemesh

#endif  // PAGEMESH_BINDING_EXPORTS_H_

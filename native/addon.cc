// The table of exports. What each does, takes and throws stands in lib/native/addon.ts.
#include <napi.h>

#include "binding/exports.h"

static Napi::Object Init(Napi::Env env, Napi::Object exports) {
  using namespace pagemesh;
  const auto add = [&](const char* name, Napi::Value (*function)(const Napi::CallbackInfo&)) {
    exports.Set(name, Napi::Function::New(env, function, name));
  };
  add("sessionCreate", SessionCreate);
  add("sessionDestroy", SessionDestroy);
  add("stop", Stop);
  add("wake", Wake);
  add("awaitToken", AwaitToken);
  add("passToken", PassToken);
  add("setView", SetView);
  add("exchange", Exchange);
  add("listen", Listen);
  add("connect", Connect);
  add("bindRank", BindRank);
  add("closeConnection", CloseConnection);
  add("openLinks", OpenLinks);
  add("link", Link);
  add("linkRecords", LinkRecords);
  add("barrierWords", BarrierWordsBuffer);
  add("tellArrival", TellArrivalAt);
  add("waitAtBarrier", WaitAtBarrier);
  add("ringProgram", RingProgram);
  add("mapRegion", MapRegion);
  add("mapWords", MapWords);
  add("unmapRegion", UnmapRegion);
  add("regionBuffer", RegionBuffer);
  add("regionStats", RegionStatsOf);
  add("homeOf", HomeOf);
  add("atomic", Atomic);
  add("countWaiters", CountWaitersOf);
  add("die", Die);
  add("probe", Probe);
  add("rdmaDevices", RdmaDevices);
#ifdef PAGEMESH_STAMPS
  add("stamps", Stamps);
#endif
  exports.Set("constants", Constants(env));
  return exports;
}

NODE_API_MODULE(pagemesh, Init)

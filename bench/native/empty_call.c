// The floor that a call into the addon stands on: a Node-API function that does nothing. The few
// declarations that it needs are here, so that it builds without the headers of Node.js.
#include <stddef.h>
#include <stdint.h>

typedef struct napi_env__* napi_env;
typedef struct napi_value__* napi_value;
typedef struct napi_callback_info__* napi_callback_info;
typedef napi_value (*napi_callback)(napi_env, napi_callback_info);
int napi_create_function(napi_env, const char*, size_t, napi_callback, void*, napi_value*);
int napi_set_named_property(napi_env, napi_value, const char*, napi_value);

static napi_value DoNothing(napi_env env, napi_callback_info info) {
  (void)env;
  (void)info;
  return NULL;
}

__attribute__((visibility("default"))) int32_t node_api_module_get_api_version_v1(void) {
  return 8;
}

__attribute__((visibility("default"))) napi_value napi_register_module_v1(napi_env env,
                                                                          napi_value exports) {
  napi_value made;
  napi_create_function(env, "doNothing", sizeof("doNothing") - 1, DoNothing, NULL, &made);
  napi_set_named_property(env, exports, "doNothing", made);
  return exports;
}

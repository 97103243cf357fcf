{
  'includes': ['native/sources.gypi'],
  'target_defaults': {
    'include_dirs': ['native', "<!(node -p \"require('node-addon-api').include_dir\")"],
    'cflags!': ['-O3'],
    'cflags': ['-O2', '-Wall', '-Wextra', '-fvisibility=hidden'],
    # Node.js sets one of these, and its flags come after ours.
    'cflags_cc!': ['-std=gnu++17', '-std=gnu++20'],
    'cflags_cc': ['-fno-exceptions'],
    # A worker's end would unmap an addon that only this worker had loaded; the signal handler and
    # the deleters of buffers that went elsewhere would then point into nothing.
    'ldflags': ['-Wl,-z,nodelete'],
  },
  'targets': [
    {
      'target_name': 'pagemesh',
      'sources': ['<@(pagemesh_sources)'],
      'cflags_cc': ['-std=c++17'],
      'defines': [
        'NAPI_VERSION=9',
        'NAPI_DISABLE_CPP_EXCEPTIONS',
        'NODE_ADDON_API_DISABLE_DEPRECATED',
      ],
      'libraries': ['-lpthread'],
    },
    {
      # Uses V8's own C++ API, which ties it to one Node.js: only older ones load it.
      'target_name': 'pagemesh_v8',
      'sources': ['native/binding/v8_shared_buffer/v8_shared_buffer.cc'],
      # The headers of V8 ask for C++20 from Node.js 24 on.
      'cflags_cc': ['-std=c++20', '-Wno-unused-parameter'],
    },
  ],
}

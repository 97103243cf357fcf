# The sources of the addon, one per line: binding.gyp and CMakeLists.txt both read this file.
{
  'variables': {
    'pagemesh_sources': [
      'native/addon.cc',
      'native/base/check.cc',
      'native/base/spin.cc',
      'native/binding/arguments.cc',
      'native/binding/exports_machine.cc',
      'native/binding/exports_region.cc',
      'native/binding/exports_session.cc',
      'native/binding/session.cc',
      'native/binding/shared_buffer.cc',
      'native/memory/fault.cc',
      'native/memory/fault_sigsegv.cc',
      'native/memory/region.cc',
      'native/memory/word_block.cc',
      'native/transport/tcp/tcp_connection.cc',
      'native/transport/tcp/tcp_transport.cc',
      'native/transport/verbs/verbs_device.cc',
      'native/transport/verbs/verbs_frames.cc',
      'native/transport/verbs/verbs_inventory.cc',
      'native/transport/verbs/verbs_library.cc',
      'native/transport/verbs/verbs_link.cc',
      'native/transport/verbs/verbs_transport.cc',
      'native/transport/verbs/verbs_words.cc',
    ],
  },
}

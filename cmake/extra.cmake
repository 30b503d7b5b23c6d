# Tests that are not cmocka programs (public headers, include arrows, libsoma alone, another architecture), fuzzers, examples.

set(compile ${PROJECT_SOURCE_DIR}/tests/compile)
add_test(NAME compile_headers COMMAND ${compile}/headers.sh ${CMAKE_C_COMPILER} ${CMAKE_CXX_COMPILER} ${PROJECT_SOURCE_DIR}/include)
add_test(NAME compile_arrows COMMAND ${compile}/arrows.sh ${PROJECT_SOURCE_DIR})
add_test(NAME compile_cross COMMAND ${compile}/cross.sh ${PROJECT_SOURCE_DIR})
set_tests_properties(compile_cross PROPERTIES SKIP_RETURN_CODE 77)
if(NOT SOMA_ASAN AND NOT SOMA_TSAN AND NOT SOMA_FUZZ)
  add_test(NAME compile_core COMMAND ${compile}/core.sh ${CMAKE_COMMAND} ${PROJECT_SOURCE_DIR} ${PROJECT_BINARY_DIR}/core)
  set_tests_properties(compile_core PROPERTIES TIMEOUT 400)
  add_test(NAME compile_neon COMMAND ${compile}/neon.sh ${CMAKE_COMMAND} ${PROJECT_SOURCE_DIR} ${PROJECT_BINARY_DIR}/neon "${CMAKE_C_COMPILER_LAUNCHER}")
  add_test(NAME compile_masked COMMAND ${compile}/masked.sh ${PROJECT_BINARY_DIR})
  set_tests_properties(compile_masked PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 1500)
  set_tests_properties(compile_neon PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 1500)
  add_test(NAME compile_install COMMAND ${compile}/install.sh ${CMAKE_COMMAND} ${PROJECT_SOURCE_DIR} ${PROJECT_BINARY_DIR} ${CMAKE_C_COMPILER}
           ${CMAKE_CXX_COMPILER} ${PROJECT_BINARY_DIR}/installed)
endif()

# A fuzz target is tests/fuzz/fuzz_<parser>.c with LLVMFuzzerTestOneInput and a folder tests/fuzz/corpus/<parser>/. Under clang with
# SOMA_FUZZ=ON it is a libFuzzer program; everywhere it is also a test that replays its corpus, so that a mended crash stays mended.
file(GLOB fuzz_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/fuzz/fuzz_*.c)
add_custom_target(fuzzers)
foreach(source ${fuzz_sources})
  get_filename_component(name ${source} NAME_WE)
  string(REPLACE fuzz_ "" parser ${name})
  if(SOMA_FUZZ)
    add_executable(${name} ${source})
    target_link_options(${name} PRIVATE -fsanitize=fuzzer)
    add_dependencies(fuzzers ${name})
  else()
    add_executable(${name} ${source} ${PROJECT_SOURCE_DIR}/tests/fuzz/replay.c)
    add_test(NAME ${name} COMMAND ${name} ${PROJECT_SOURCE_DIR}/tests/fuzz/corpus/${parser})
    set_tests_properties(${name} PROPERTIES TIMEOUT 120)
  endif()
  target_link_libraries(${name} PRIVATE soma_serve soma_data soma_policy soma_format soma_text)
endforeach()

# the server among bad clients (tests/serve/soak.c): built with the rest, run by hand
add_executable(soak EXCLUDE_FROM_ALL ${PROJECT_SOURCE_DIR}/tests/serve/soak.c)
target_include_directories(soak PRIVATE ${PROJECT_SOURCE_DIR}/tests)
target_link_libraries(soak PRIVATE soma_serve)

# examples/<name>.c and .cc: those that know soma.h alone link libsoma alone (CMakeLists.txt); they are run by the tests on a checkpoint that is absent
foreach(source ${example_sources})
  get_filename_component(name ${source} NAME_WE)
  add_test(NAME example_${name} COMMAND example_${name} /nowhere)
  set_tests_properties(example_${name} PROPERTIES WILL_FAIL TRUE)
endforeach()

# they run the program
foreach(name test_program test_way)
  if(TARGET ${name} AND TARGET soma)
    add_dependencies(${name} soma)
  endif()
endforeach()

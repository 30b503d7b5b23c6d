# `cmake --install BUILD --prefix DIR`: the program where it is built, libsoma with its headers, pkg-config, find_package(soma), and the
# Python binding. Headers of libsoma-lab stay at home.

include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(soma_pc_requires jansson)
if(SENTENCEPIECE_FOUND)
  string(APPEND soma_pc_requires " sentencepiece")
endif()
if(UTF8PROC_FOUND)
  string(APPEND soma_pc_requires " libutf8proc")
endif()
file(RELATIVE_PATH soma_pc_up /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
string(REGEX REPLACE "/$" "" soma_pc_up "${soma_pc_up}") # from the .pc file to wherever it was installed
configure_file(cmake/soma.pc.in ${PROJECT_BINARY_DIR}/generated/soma.pc @ONLY)

set(package ${CMAKE_INSTALL_LIBDIR}/cmake/soma)
install(TARGETS libsoma_shared EXPORT somaTargets LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(TARGETS libsoma ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(FILES include/soma/base.h include/soma/opts.h include/soma/soma.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/soma)
install(FILES ${PROJECT_BINARY_DIR}/generated/soma.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
install(EXPORT somaTargets NAMESPACE soma:: FILE somaConfig.cmake DESTINATION ${package})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/generated/somaConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/generated/somaConfigVersion.cmake DESTINATION ${package})
install(FILES bindings/python/soma.py DESTINATION ${CMAKE_INSTALL_DATADIR}/soma/python)

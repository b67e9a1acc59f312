# The small files of a folder are compiled as one: what they cost are the headers they share. Those that are large stand
# alone: vector code, which Highway includes once for each instruction set, kernels that are compiled once for each
# dtype, bindings of pybind11. -DDEEPSEEK_UNITS=OFF compiles every file by itself.
set(DEEPSEEK_LARGE "HWY_TARGET_INCLUDE|-inl\\.h\"|#pragma GCC|\\[&\\]<class T>\\(|\"python/bind/bind\\.h\"")

function(deepseek_compile_by_folder target)
  get_target_property(sources ${target} SOURCES)
  foreach(source ${sources})
    file(STRINGS ${source} large REGEX "${DEEPSEEK_LARGE}" LIMIT_COUNT 1)
    if(NOT large)
      cmake_path(GET source PARENT_PATH folder)
      cmake_path(RELATIVE_PATH folder BASE_DIRECTORY ${PROJECT_SOURCE_DIR})
      string(REPLACE "/" "-" group ${folder})
      set_source_files_properties(${source} PROPERTIES UNITY_GROUP ${group})
    endif()
  endforeach()
  set_target_properties(${target} PROPERTIES UNITY_BUILD ${DEEPSEEK_UNITS} UNITY_BUILD_MODE GROUP)
  # It takes what a unit includes for a header, and stops to inline where a large unit has grown by 40 %, small functions on
  # the way of every call too: an add of 12 numbers took 173 ns in place of 150.
  target_compile_options(${target} PRIVATE
    $<$<CXX_COMPILER_ID:GNU>:-Wno-subobject-linkage;--param=inline-unit-growth=400>)
endfunction()

# deepseek::dependencies: threads and Highway, what the library links. Also used by the installed deepseek-config.cmake.
# deepseek::oracles: OpenBLAS and (DEEPSEEK_DNNL) oneDNN, what the GoogleTests compare our matrix products with.

# oneDNN runs on OpenMP, and OpenBLAS with its own pthread pool beside that costs 1.4 to 2 times the run time, so only the
# OpenMP build will do.
function(deepseek_check_openblas_is_openmp)
  if(DEEPSEEK_OPENBLAS_CHECKED STREQUAL DEEPSEEK_OPENBLAS_LIBRARY)
    return()
  endif()
  file(WRITE ${CMAKE_BINARY_DIR}/openblas_check.cc
       [[extern "C" int openblas_get_parallel(void); int main() { return openblas_get_parallel() == 2 ? 0 : 1; }]])
  try_run(
    run compiled ${CMAKE_BINARY_DIR}/openblas_check ${CMAKE_BINARY_DIR}/openblas_check.cc
    LINK_LIBRARIES ${DEEPSEEK_OPENBLAS_LIBRARY} ${ARGN} OpenMP::OpenMP_CXX
    COMPILE_OUTPUT_VARIABLE output)
  if(NOT compiled)
    message(FATAL_ERROR "Linking against ${DEEPSEEK_OPENBLAS_LIBRARY} failed:\n${output}")
  elseif(NOT run EQUAL 0)
    message(FATAL_ERROR "${DEEPSEEK_OPENBLAS_LIBRARY} is not the OpenMP build of OpenBLAS. Run:\n"
                        "  apt-get install libopenblas-openmp-dev\n"
                        "and leave DEEPSEEK_OPENBLAS_LIBRARY unset.")
  endif()
  set(DEEPSEEK_OPENBLAS_CHECKED ${DEEPSEEK_OPENBLAS_LIBRARY} CACHE INTERNAL "The OpenBLAS that passed the check")
endfunction()

function(deepseek_missing packages)
  if(packages)
    string(REPLACE ";" " " list "${packages}")
    message(FATAL_ERROR "Libraries that deepseek needs are missing. Run:\n  apt-get install ${list}\n${ARGN}")
  endif()
endfunction()

function(deepseek_find_dependencies)
  find_package(Threads REQUIRED)
  set(missing "")
  find_library(DEEPSEEK_HWY_LIBRARY NAMES hwy)
  find_path(DEEPSEEK_HWY_INCLUDE_DIR hwy/highway.h)
  if(NOT DEEPSEEK_HWY_LIBRARY OR NOT DEEPSEEK_HWY_INCLUDE_DIR)
    list(APPEND missing libhwy-dev)
  endif()
  deepseek_missing("${missing}")
  add_library(deepseek::dependencies INTERFACE IMPORTED GLOBAL)
  target_link_libraries(deepseek::dependencies INTERFACE ${DEEPSEEK_HWY_LIBRARY} Threads::Threads m)
endfunction()

function(deepseek_find_oracles)
  find_package(OpenMP REQUIRED COMPONENTS CXX)
  if(NOT DEEPSEEK_BLAS MATCHES "^(static|shared)$")
    message(FATAL_ERROR "DEEPSEEK_BLAS must be static or shared, got '${DEEPSEEK_BLAS}'.")
  endif()
  set(missing "")
  # Debian keeps each flavour of OpenBLAS in its own folder; the plain name may resolve to the pthread one.
  set(blas_name libopenblas.a)
  if(DEEPSEEK_BLAS STREQUAL "shared")
    set(blas_name libopenblas.so)
  endif()
  if(DEEPSEEK_OPENBLAS_LIBRARY AND NOT DEEPSEEK_OPENBLAS_LIBRARY MATCHES "${blas_name}$")
    unset(DEEPSEEK_OPENBLAS_LIBRARY CACHE)
  endif()
  find_library(DEEPSEEK_OPENBLAS_LIBRARY NAMES ${blas_name} PATH_SUFFIXES openblas-openmp)
  find_path(DEEPSEEK_OPENBLAS_INCLUDE_DIR cblas.h PATH_SUFFIXES openblas-openmp openblas
            PATHS /usr/include/${CMAKE_LIBRARY_ARCHITECTURE} NO_CACHE)
  if(NOT DEEPSEEK_OPENBLAS_LIBRARY OR NOT DEEPSEEK_OPENBLAS_INCLUDE_DIR)
    list(APPEND missing libopenblas-openmp-dev)
  endif()
  # LAPACK inside the archive is Fortran. Its run-time comes with OpenBLAS, the development link with gfortran.
  set(fortran "")
  if(DEEPSEEK_BLAS STREQUAL "static")
    find_library(DEEPSEEK_GFORTRAN_LIBRARY NAMES gfortran libgfortran.so.5)
    if(NOT DEEPSEEK_GFORTRAN_LIBRARY)
      list(APPEND missing libgfortran5)
    endif()
    set(fortran ${DEEPSEEK_GFORTRAN_LIBRARY})
  endif()
  set(dnnl "")
  if(DEEPSEEK_DNNL)
    find_library(DEEPSEEK_DNNL_LIBRARY NAMES dnnl)
    find_path(DEEPSEEK_DNNL_INCLUDE_DIR dnnl.hpp PATH_SUFFIXES oneapi/dnnl)
    if(NOT DEEPSEEK_DNNL_LIBRARY OR NOT DEEPSEEK_DNNL_INCLUDE_DIR)
      list(APPEND missing libdnnl-dev)
    endif()
    set(dnnl ${DEEPSEEK_DNNL_LIBRARY})
  endif()
  deepseek_missing("${missing}" "or configure with -DDEEPSEEK_TESTS=OFF (only oneDNN missing: -DDEEPSEEK_DNNL=OFF).")
  deepseek_check_openblas_is_openmp(${fortran} m)
  add_library(deepseek::oracles INTERFACE IMPORTED GLOBAL)
  target_include_directories(deepseek::oracles SYSTEM INTERFACE ${DEEPSEEK_OPENBLAS_INCLUDE_DIR})
  target_link_libraries(deepseek::oracles INTERFACE ${DEEPSEEK_OPENBLAS_LIBRARY} ${fortran} ${dnnl} OpenMP::OpenMP_CXX m)
endfunction()

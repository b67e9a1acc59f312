# Copies the headers of csrc, as a user includes them: below one folder and by one prefix, <deepseek/core/tensor.h>.
# Inside the tree headers name each other relative to csrc; in the copy they get the prefix too, so that one include
# folder is enough and a user's own core/ or io/ cannot get in the way. Included at install time, with FROM (folders
# with headers) and TO set.
file(REMOVE_RECURSE ${TO})
set(layers "")
foreach(from IN LISTS FROM)
  file(GLOB folders RELATIVE ${from} ${from}/*)
  list(APPEND layers ${folders})
endforeach()
list(JOIN layers "|" layers)
foreach(from IN LISTS FROM)
  file(GLOB_RECURSE headers RELATIVE ${from} ${from}/*.h ${from}/*.def)
  list(FILTER headers EXCLUDE REGEX "^(python|cmake)/|-inl\\.h$")
  foreach(header IN LISTS headers)
    file(READ ${from}/${header} text)
    string(REGEX REPLACE "(\n#include \")((${layers})/)" "\\1deepseek/\\2" text "${text}")
    if(header STREQUAL "api/deepseek.h")
      set(header deepseek.h)
    endif()
    file(WRITE ${TO}/deepseek/${header} "${text}")
  endforeach()
endforeach()

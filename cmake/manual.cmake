# Makes OUT/tuiqiao.1 and OUT/tuiqiao.bash from what the programs say of themselves.
# cmake -DPROGRAM=tuiqiao [-DTORCH_PROGRAM=tuiqiao-torch] -DCOMPLETION=completion.bash.in -DOUT=folder -P manual.cmake
execute_process(COMMAND ${PROGRAM} manual man OUTPUT_VARIABLE page COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${PROGRAM} manual words OUTPUT_VARIABLE TUIQIAO_WORDS COMMAND_ERROR_IS_FATAL ANY)
if(TORCH_PROGRAM)
  execute_process(COMMAND ${TORCH_PROGRAM} manual man OUTPUT_VARIABLE torch_page COMMAND_ERROR_IS_FATAL ANY)
  execute_process(COMMAND ${TORCH_PROGRAM} manual words OUTPUT_VARIABLE torch_words COMMAND_ERROR_IS_FATAL ANY)
  # Its commands, into the page and the table of the other.
  string(REGEX REPLACE "^.*\n\\.SH COMMANDS\n" "" torch_page "${torch_page}")
  string(REGEX REPLACE "\\.SH EXIT STATUS.*$" "" torch_page "${torch_page}")
  string(REGEX REPLACE "^tuiqiao:[^\n]*\n" "" torch_words "${torch_words}")
  string(REPLACE ".SH EXIT STATUS" "${torch_page}.SH EXIT STATUS" page "${page}")
  string(APPEND TUIQIAO_WORDS "${torch_words}")
endif()
file(WRITE ${OUT}/tuiqiao.1 "${page}")
configure_file(${COMPLETION} ${OUT}/tuiqiao.bash @ONLY)

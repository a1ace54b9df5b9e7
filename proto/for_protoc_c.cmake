# cmake -DINPUT=x.proto -DOUTPUT=y.proto -P for_protoc_c.cmake
#
# The copy of a .proto file that protoc-c 1.4.1 (Debian 12, Ubuntu 24.04) can read; protoc gets the original. Three things differ:
#  - protoc-c refuses proto3's `optional`. By its definition `optional T f = 1;` is a oneof with one member, on the wire and in
#    the descriptor, so the copy says just that: f is set when has_f_case is not 0.
#  - services are left out: rpc_server.h and rpc_client.h call methods by path, and protoc-c's structs for
#    them are no C when a method is called Register.
file(READ ${INPUT} text)
string(REGEX REPLACE "optional +([A-Za-z0-9_.]+) +([A-Za-z0-9_]+) *= *([0-9]+);" "oneof has_\\2 { \\1 \\2 = \\3; }" text "${text}")
string(REGEX REPLACE "\nservice +[A-Za-z]+ *{[^}]*}" "" text "${text}")
#  - inference's strings become bytes, the same on the wire: protoc-c's char * would end a prompt at its first NUL.
if(INPUT MATCHES "/inference\\.proto$")
  string(REGEX REPLACE "([{;\n] *(optional |repeated )?)string " "\\1bytes " text "${text}")
endif()
file(WRITE ${OUTPUT} "${text}")

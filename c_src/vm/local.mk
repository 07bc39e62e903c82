# The interpreter, its threads, calls and the NIF table.
VM_SOURCES =

/* The atoms of the VM layer's NIFs, made once at load. */
#ifndef BEAMLOOP_VM_ATOMS_NIF_H
#define BEAMLOOP_VM_ATOMS_NIF_H

#include <erl_nif.h>

typedef struct vm_atom_table {
  ERL_NIF_TERM bad_result;
  ERL_NIF_TERM beamloop;
  ERL_NIF_TERM beamloop_relay;
  ERL_NIF_TERM default_;
  ERL_NIF_TERM enomem;
  ERL_NIF_TERM error;
  ERL_NIF_TERM false_;
  ERL_NIF_TERM not_running;
  ERL_NIF_TERM ok;
  ERL_NIF_TERM overloaded;
  ERL_NIF_TERM send;
  ERL_NIF_TERM stopped;
  ERL_NIF_TERM true_;
} vm_atom_table;

extern vm_atom_table vm_atoms; /* written at load only */

void atoms_nif_load(ErlNifEnv *env);

#endif

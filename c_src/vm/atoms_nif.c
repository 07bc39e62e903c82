/* The atoms of the VM layer's NIFs. */
#include "atoms_nif.h"

vm_atom_table vm_atoms;

void
atoms_nif_load(ErlNifEnv *env)
{
  vm_atoms = (vm_atom_table){
      .bad_result = enif_make_atom(env, "bad_result"),
      .beamloop = enif_make_atom(env, "beamloop"),
      .beamloop_relay = enif_make_atom(env, "beamloop_relay"),
      .default_ = enif_make_atom(env, "default"),
      .enomem = enif_make_atom(env, "enomem"),
      .error = enif_make_atom(env, "error"),
      .false_ = enif_make_atom(env, "false"),
      .not_running = enif_make_atom(env, "not_running"),
      .ok = enif_make_atom(env, "ok"),
      .overloaded = enif_make_atom(env, "overloaded"),
      .send = enif_make_atom(env, "send"),
      .stopped = enif_make_atom(env, "stopped"),
      .true_ = enif_make_atom(env, "true"),
  };
}

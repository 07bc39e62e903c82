/* Sending bytes from Erlang: they are the payload as they are. */
#include "channel_attachment.h"
#include "channel_nif.h"
#include "channel_nif_internal.h"

/* What is larger is kept by reference. */
#define BYTES_COPY_MAX 4096

/* A large binary of that size; ref or NULL. */
static ERL_NIF_TERM
send_large(ErlNifEnv *env, channel_handle *h, ERL_NIF_TERM binary, size_t size,
           const ERL_NIF_TERM *ref)
{
  ErlNifIOVec *iovec = NULL;
  ERL_NIF_TERM tail;
  if (ref == NULL) {
    binary_attachment kept;
    channel_attachment_fill_bytes(&kept, binary, size);
    return channel_send_for(env, h, NULL, size, &kept.base, NULL);
  }
  if (!enif_inspect_iovec(NULL, SIZE_MAX, enif_make_list1(env, binary), &tail, &iovec)) {
    return enif_make_badarg(env);
  }
  message_attachment *attachment = channel_attachment_new(iovec, NULL, 0);
  return attachment == NULL ? channel_make_result(env, QUEUE_NO_MEMORY)
                            : channel_send_for(env, h, NULL, size, attachment, ref);
}

ERL_NIF_TERM
nif_byte_channel_send(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{ /* (Channel, Binary[, Ref]) */
  channel_handle *h = channel_nif_get_bytes(env, argv[0]);
  const ERL_NIF_TERM *ref = argc == 3 ? &argv[2] : NULL;
  ErlNifBinary binary;
  if (h == NULL || !enif_inspect_binary(env, argv[1], &binary)) {
    return enif_make_badarg(env);
  }
  if (binary.size > BYTES_COPY_MAX) {
    return send_large(env, h, argv[1], binary.size, ref);
  }
  return channel_send_for(env, h, binary.data, binary.size, NULL, ref);
}

ERL_NIF_TERM
nif_byte_channel_send_iovec(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{ /* (Channel, Binaries[, Ref]) */
  return channel_send_iovec(env, channel_nif_get_bytes(env, argv[0]), argv[1],
                            enif_make_list(env, 0), argc == 3 ? &argv[2] : NULL);
}

# The term codec: an extension module, and the parts of it that are linked into the NIF.
TERM_SOURCES = \
	c_src/term/term_api.h \
	c_src/term/term_atom.c \
	c_src/term/term_buf.c \
	c_src/term/term_buf.h \
	c_src/term/term_decode.c \
	c_src/term/term_depth.c \
	c_src/term/term_encode.c \
	c_src/term/term_ext.h \
	c_src/term/term_ident.c \
	c_src/term/term_internal.h \
	c_src/term/term_module.c \
	c_src/term/term_scan.c \
	c_src/term/term_types.c

TERM_NIF_SOURCES = \
	c_src/term/atoms.h \
	c_src/term/handle_bundle.h \
	c_src/term/handle_bundle_nif.c \
	c_src/term/handle_bundle_nif.h \
	c_src/term/handles.h \
	c_src/term/handles_nif.c \
	c_src/term/local_node.h \
	c_src/term/local_node_nif.c \
	c_src/term/nif_build.c \
	c_src/term/nif_encode.c \
	c_src/term/nif_encode.h \
	c_src/term/nif_terms.c \
	c_src/term/nif_terms.h \
	c_src/term/term_buf.c \
	c_src/term/term_link.c \
	c_src/term/term_link.h

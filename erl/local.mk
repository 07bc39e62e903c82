# Modules and their headers, in alphabetical order.
ERL_MODULES =

"""OpenSSH's formats as pure functions: text in, values out."""

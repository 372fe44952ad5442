"""What stands between a key and a shell: asked of sshd, of PAM and of the files, and nothing changed."""

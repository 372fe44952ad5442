"""Images fit to share: rules that check, changes that repair, and the two commands that use them."""

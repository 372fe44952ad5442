"""Images fit to share: rules that check, changes that mend, and the two commands that use them."""

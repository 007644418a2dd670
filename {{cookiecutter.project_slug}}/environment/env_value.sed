# The value behind `NAME=` in .env: without quotes, comment and blanks.
s/^[[:space:]]*//
t begin
:begin
s/^'\([^']*\)'.*/\1/
t
s/^"\([^"]*\)".*/\1/
t
s/[[:space:]]#.*//
s/[[:space:]]*$//

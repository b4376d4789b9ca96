#!/bin/sh
# Zensical (0.0.73), which makes one book of Markdown pages, has a plugin `offline` so that the book
# can be read from files. One would think that such a book asks nobody. With the plugin, and only
# with it, every page loads a script from a server of the web; nothing is said of that while the book
# is built, also not with --strict. Naming a copy of that script (`extra.polyfills`) prevents it.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check zensical==0.0.73

# what a page loads from elsewhere, for a book with these settings
asked() {
    mkdir -p "$folder/$1/docs"
    printf '# A page\n\nIts text.\n' > "$folder/$1/docs/index.md"
    printf '[project]\nsite_name = "Book"\n[project.theme]\nfont = false\n%s\n' "$2" > "$folder/$1/zensical.toml"
    (cd "$folder/$1" && "$folder/venv/bin/zensical" build --strict >/dev/null)
    grep -Eo '<script[^>]*src="?https?:' "$folder/$1/site/index.html" | wc -l
}
plain=$(asked plain '')
offline=$(asked offline '[project.plugins.offline]')
named=$(asked named '[project.plugins.offline]
[[project.extra.polyfills]]
path = "iframe-worker.js"
type = "text/javascript"')
echo "scripts loaded from elsewhere: $plain as usual, $offline with the plugin offline, $named with a copy named"
test "$plain" -eq 0 && test "$offline" -ge 1 && test "$named" -eq 0

// Browsers load no modules and read no parts of files from a folder on disk: say what to do instead.
(function () {
  function tell(text) {
    var box = document.getElementById('trouble');
    box.textContent = text;
    box.hidden = false;
  }
  if (location.protocol === 'file:') {
    tell('This map needs a web server, on this machine alone if you like: run "popcorn view" with '
      + 'this folder, or put the folder on any server that answers range requests (nginx, Apache, '
      + 'Caddy, object storage). The report and the files beside this page open without one.');
  }
  window.popcornTell = tell;
  addEventListener('error', function (event) {
    var script = event.target && event.target.tagName === 'SCRIPT';
    if (script && location.protocol !== 'file:') tell('A part of this page is missing: ' + event.target.src);
  }, true);
})();

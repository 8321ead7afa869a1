// Fonts are the reader's own, and the search index would need a worker made from a blob.
Redoc.init(
  "openapi.json",
  {
    disableSearch: true,
    expandResponses: "200,202",
    hideDownloadButton: false,
    nativeScrollbars: true,
    theme: {
      typography: {
        fontFamily: "system-ui, sans-serif",
        headings: { fontFamily: "system-ui, sans-serif" },
        code: { fontFamily: "ui-monospace, monospace" },
      },
    },
  },
  document.getElementById("page"),
);

"""Groups of images: their tables, tests, figures and the page of the tree (`stedfm cluster`)."""

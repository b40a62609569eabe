"""What reports are made of: blocks, and pages and Markdown made from them."""

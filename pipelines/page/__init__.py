"""What the nightly report is made of: numbers, charts, pictures, and the template that puts them on one page."""
